#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "pipeline/sample.hpp"
#include "pipeline/stage.hpp"
#include "pipeline/stats.hpp"

namespace gp {

class TransformChain;

/// What one worker thread needs: buffers, recycled from sample to sample, so that there are never
/// more full-size images than threads, and its clock.
struct Workspace {
  /// `track` is the thread's row in the trace.
  explicit Workspace(const TransformChain& chain, Trace* trace = nullptr,
                     Trace::Track* track = nullptr);
  std::vector<std::uint8_t> bytes;
  Image images[2];
  std::shared_ptr<StageClock> clock;
};

/// The part of `image` that counts, rounded outwards to whole pixels: a view into the same memory.
ConstImageView cut_to_region(ConstImageView image, const Geometry& geometry);

/// A source and the transforms after it, applied to one sample: what the graph's nodes call, and
/// what one-stage tests call without a graph. Thread-safe.
///
/// Neighbouring geometric stages become one resampling; a cropped region is cut out before stages
/// that do not read it; the last image is written into the sample's place in the batch.
///
/// A link with choices (augment.one_of) stands, for each sample, for one of them or for none; the
/// draw depends on seed, address, epoch and key, like those of any stage.
class TransformChain {
 public:
  struct Link {
    std::string address;
    const TransformStage* stage = nullptr;  ///< null for a link with choices
    const StageInfo* info = nullptr;
    std::vector<Link> choices = {};
    double p = 1;       ///< with choices: probability that one is taken
    double weight = 1;  ///< of a choice
  };

  TransformChain(const SourceStage& source, std::string source_address, std::vector<Link> links,
                 std::uint64_t seed);

  /// Links are numbered from 0; number -1 is the source. A segment [first, last) of links runs on
  /// one thread without handing the sample over.
  struct Segment {
    int first = -1;
    int last = 0;
    bool serial = false;
  };
  /// The fewest segments such that stages that are serial have one of their own.
  std::vector<Segment> segments() const;
  static std::vector<Segment> segments(const std::vector<bool>& serial);

  /// Takes the sample through a segment. A bad sample becomes a tombstone; a fault of a stage is
  /// thrown as gp::Error that names stage and sample.
  void run(const Segment& segment, Sample& sample, Workspace& workspace) const;

  /// The shape of the images at the end; not fixed() where it differs between samples.
  ImageShape output_shape() const { return output_shape_; }
  /// What each stage did so far, in order: the source, the links, or in their place their choices.
  /// A resampling that several geometric stages share is booked on the last of them.
  std::vector<StageTotals> totals() const;
  /// Forgets totals and events, between two streams.
  void reset_counts() const;
  const EventCounts& events() const { return events_; }

  const std::string& address(int link) const {
    return nodes_[static_cast<std::size_t>(link)].address;
  }
  /// The address of the stage that each link stands for with this sample: its own, that of the
  /// choice taken, or "" where none is.
  std::vector<std::string> chosen_addresses(const Sample& sample) const;

  /// Called after each stage with its address and its output, for replays and --dry-run. The sample
  /// goes on exactly as without: of neighbouring geometric stages, each is shown by one resampling
  /// of the maps so far, and the last of these pictures is the one that goes on.
  using Observer = std::function<void(const std::string& address, const StageInput& output)>;
  void set_observer(Observer observer) { observer_ = std::move(observer); }  ///< before it runs

  /// Leaves out the links from number `n_links` on, for measuring; called before it runs. What
  /// comes out is thrown away: it may be of any size.
  void cut_off(int n_links) { n_links_ = std::min(n_links, n_links_); }

 private:
  class Output;
  struct State;
  /// A link with what belongs to it. Those that are not in choices come first and in order, so that
  /// a node's index is its link's.
  struct Node {
    std::string address;
    const TransformStage* stage = nullptr;
    const StageInfo* info = nullptr;
    std::uint64_t address_hash = 0;
    std::vector<int> choices;
    double p = 1;
    double weight = 1;
  };
  void add_node(const Link& link, int at);
  ImageShape output_shape_of(const Node& node, ImageShape in) const;
  bool is_serial(const Node& node) const;
  void add_totals(const Node& node, bool serial, std::vector<StageTotals>& totals) const;
  /// What link `index` stands for with this sample: its own node, one of its choices, or null for
  /// none.
  const Node* chosen(int index, const Sample& sample) const;
  std::size_t number_of(const Node& node) const {
    return static_cast<std::size_t>(&node - nodes_.data()) + 1;
  }
  void read(Sample& sample, State& state) const;
  int run_geometric(int first, int last, Sample& sample, State& state) const;
  /// Runs `node` in the place of link `index`.
  void run_stage(int index, const Node& node, Sample& sample, State& state) const;
  void cut_region(State& state) const;
  /// Puts the image into the sample's place; true where it had to be copied.
  bool deliver(Sample& sample, State& state) const;
  /// The sample's place in its batch where link `index` is the last one; otherwise nothing.
  ImageView slot_after(int index, const Sample& sample) const;
  Rng rng_for(const Node& node, const Sample& sample) const;

  const SourceStage& source_;
  std::string source_address_;
  int n_links_ = 0;
  std::vector<Node> nodes_;
  std::uint64_t seed_;
  ImageShape output_shape_;
  friend struct Workspace;
  std::shared_ptr<StageClock> make_clock(Trace* trace, Trace::Track* track) const;
  std::vector<std::string> addresses_;  ///< [0] the source, [i + 1] node i
  mutable std::mutex clocks_mutex_;
  mutable std::vector<std::shared_ptr<StageClock>> clocks_;  ///< one a thread that ever ran it
  mutable EventCounts events_;
  Observer observer_;
};

}  // namespace gp
