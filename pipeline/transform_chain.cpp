#include "pipeline/transform_chain.hpp"

#include <algorithm>
#include <cmath>

#include "pipeline/error.hpp"

namespace gp {

/// What the sample looks like between two stages of a segment.
struct TransformChain::State {
  Workspace& workspace;
  std::span<const std::uint8_t> bytes;
  ConstImageView image;
  Geometry geometry;
  int buffer = -1;     ///< which workspace image holds `image`; -1: none of them
  std::size_t at = 0;  ///< number of the stage that is at work: 0 the source, i + 1 node i

  /// A recycled image that is not the current one.
  Image& spare() { return workspace.images[buffer == 0 ? 1 : 0]; }
};

/// Collects what one stage says about its output and gives it memory.
class TransformChain::Output : public StageOutput {
 public:
  Output(State& state, EventCounts& events, ImageView slot, std::vector<std::uint8_t>& bytes)
      : state_(state), events_(events), slot_(slot), bytes_(bytes) {}

  ImageView image(int height, int width) override {
    if (height <= 0 || width <= 0) {
      throw std::logic_error("asked for an output image of " +
                             to_string(ImageShape{height, width}) + " pixels");
    }
    answer_with(Answer::kImage);
    if (slot_.shape() == ImageShape{height, width}) {
      image_ = slot_;
    } else {
      Image& spare = state_.spare();
      spare.reshape(height, width);
      image_ = spare.view();
    }
    return image_;
  }
  std::vector<std::uint8_t>& bytes() override {
    answer_with(Answer::kBytes);
    bytes_.clear();
    return bytes_;
  }
  void pass_through() override { answer_with(Answer::kPassThrough); }
  void set_geometry(const Geometry& geometry) override {
    geometry_ = geometry;
    has_geometry_ = true;
  }
  void drop(std::string reason) override {
    if (answer_ != Answer::kImage) answer_with(Answer::kDrop);
    answer_ = Answer::kDrop;
    reason_ = std::move(reason);
  }
  void count(const std::string& event) override { events_.add(event); }

  /// Makes the output the current state, or the sample a tombstone.
  void commit(Sample& sample, const std::string& address) {
    switch (answer_) {
      case Answer::kNone:
        throw std::logic_error(
            "returned without an output: it must call image(), bytes(), "
            "pass_through() or drop()");
      case Answer::kImage: {
        const bool in_slot = image_.data == slot_.data;
        state_.buffer = in_slot ? -1 : (state_.buffer == 0 ? 1 : 0);
        state_.image = image_;
        state_.bytes = {};
        state_.geometry = has_geometry_ ? geometry_ : Geometry::whole(image_.shape());
        break;
      }
      case Answer::kBytes:
        state_.bytes = bytes_;
        state_.image = {};
        state_.geometry = has_geometry_ ? geometry_ : Geometry{};
        state_.buffer = -1;
        break;
      case Answer::kPassThrough:
        if (has_geometry_) state_.geometry = geometry_;
        break;
      case Answer::kDrop:
        sample.reject = Reject{sample.info.key, address, reason_, true};
        break;
    }
  }

 private:
  enum class Answer { kNone, kImage, kBytes, kPassThrough, kDrop };
  void answer_with(Answer answer) {
    if (answer_ != Answer::kNone) throw std::logic_error("gave two outputs for one sample");
    answer_ = answer;
  }

  State& state_;
  EventCounts& events_;
  ImageView slot_;
  std::vector<std::uint8_t>& bytes_;
  Answer answer_ = Answer::kNone;
  ImageView image_;
  Geometry geometry_;
  bool has_geometry_ = false;
  std::string reason_;
};

Workspace::Workspace(const TransformChain& chain, Trace* trace, Trace::Track* track)
    : clock(chain.make_clock(trace, track)) {}

TransformChain::TransformChain(const SourceStage& source, std::string source_address,
                               std::vector<Link> links, std::uint64_t seed)
    : source_(source),
      source_address_(std::move(source_address)),
      n_links_(static_cast<int>(links.size())),
      seed_(seed),
      output_shape_(source.output_shape()) {
  nodes_.resize(links.size());
  for (int i = 0; i < n_links_; ++i) add_node(links[static_cast<std::size_t>(i)], i);
  addresses_.push_back(source_address_);
  for (const Node& node : nodes_) addresses_.push_back(node.address);
  for (int i = 0; i < n_links_; ++i) output_shape_ = output_shape_of(nodes_[i], output_shape_);
}

void TransformChain::add_node(const Link& link, int at) {
  Node node{link.address, link.stage, link.info, hash64(link.address), {}, link.p, link.weight};
  for (const Link& choice : link.choices) {
    node.choices.push_back(static_cast<int>(nodes_.size()));
    nodes_.emplace_back();
    add_node(choice, node.choices.back());
  }
  nodes_[at] = std::move(node);
}

std::shared_ptr<StageClock> TransformChain::make_clock(Trace* trace, Trace::Track* track) const {
  const std::lock_guard lock(clocks_mutex_);
  return clocks_.emplace_back(std::make_shared<StageClock>(addresses_, trace, track));
}

std::vector<StageTotals> TransformChain::totals() const {
  std::vector<StageTotals> totals{{source_address_, false, 0, 0}};
  for (int i = 0; i < n_links_; ++i) add_totals(nodes_[i], is_serial(nodes_[i]), totals);
  const std::lock_guard lock(clocks_mutex_);
  for (const auto& clock : clocks_) clock->add_to(totals.front(), 0);
  return totals;
}

void TransformChain::reset_counts() const {
  events_.reset();
  const std::lock_guard lock(clocks_mutex_);
  clocks_.clear();
}

void TransformChain::add_totals(const Node& node, bool serial,
                                std::vector<StageTotals>& totals) const {
  for (const int choice : node.choices) add_totals(nodes_[choice], serial, totals);
  if (!node.choices.empty()) return;
  totals.push_back({node.address, serial, 0, 0});
  const std::lock_guard lock(clocks_mutex_);
  for (const auto& clock : clocks_) clock->add_to(totals.back(), number_of(node));
}

ImageShape TransformChain::output_shape_of(const Node& node, ImageShape in) const {
  if (node.choices.empty()) return node.stage->output_shape(in);
  ImageShape shape = output_shape_of(nodes_[node.choices.front()], in);
  const auto add = [&](const std::string& what, ImageShape other) {
    if (shape.fixed() && other.fixed() && shape != other) {
      throw ConfigError("'" + node.address + "': '" + nodes_[node.choices.front()].address +
                        "' gives " + to_string(shape) + " pixels, " + what + " " +
                        to_string(other) +
                        "; all must give the same size: put a resize behind "
                        "those that differ, or set their sizes");
    }
    if (shape.height != other.height) shape.height = 0;
    if (shape.width != other.width) shape.width = 0;
  };
  for (const int choice : node.choices) {
    add("'" + nodes_[choice].address + "'", output_shape_of(nodes_[choice], in));
  }
  if (node.p < 1) add("an image for which none is chosen", in);
  return shape;
}

bool TransformChain::is_serial(const Node& node) const {
  return node.info->concurrency == Concurrency::kSerial ||
         std::any_of(node.choices.begin(), node.choices.end(),
                     [this](int choice) { return is_serial(nodes_[choice]); });
}

const TransformChain::Node* TransformChain::chosen(int index, const Sample& sample) const {
  const Node* node = &nodes_[index];
  while (!node->choices.empty()) {
    Rng rng = rng_for(*node, sample);
    if (rng.uniform(0.0, 1.0) >= node->p) return nullptr;
    double total = 0;
    for (const int choice : node->choices) total += nodes_[choice].weight;
    double rest = rng.uniform(0.0, total);
    const Node* taken = nullptr;
    for (const int choice : node->choices) {
      if (nodes_[choice].weight <= 0) continue;
      taken = &nodes_[choice];  // the last one with a weight, should rounding leave a rest
      rest -= taken->weight;
      if (rest < 0) break;
    }
    node = taken;
  }
  return node;
}

std::vector<std::string> TransformChain::chosen_addresses(const Sample& sample) const {
  std::vector<std::string> addresses;
  for (int i = 0; i < n_links_; ++i) {
    const Node* node = chosen(i, sample);
    addresses.push_back(node == nullptr ? "" : node->address);
  }
  return addresses;
}

std::vector<TransformChain::Segment> TransformChain::segments() const {
  std::vector<bool> serial;
  for (int i = 0; i < n_links_; ++i) serial.push_back(is_serial(nodes_[i]));
  return segments(serial);
}

std::vector<TransformChain::Segment> TransformChain::segments(const std::vector<bool>& serial) {
  std::vector<Segment> result{{-1, 0, false}};
  for (int i = 0; i < static_cast<int>(serial.size()); ++i) {
    if (serial[i] || result.back().serial) {
      result.push_back({i, i + 1, serial[i]});
    } else {
      result.back().last = i + 1;
    }
  }
  return result;
}

Rng TransformChain::rng_for(const Node& node, const Sample& sample) const {
  return {seed_, node.address_hash, sample.info.epoch, sample.info.key_hash};
}

ImageView TransformChain::slot_after(int index, const Sample& sample) const {
  if (index + 1 != n_links_ || !sample.slab) return {};
  return {sample.slab.get() + sample.slot * output_shape_.bytes(), output_shape_.height,
          output_shape_.width, static_cast<std::ptrdiff_t>(output_shape_.width) * kChannels};
}

void TransformChain::run(const Segment& segment, Sample& sample, Workspace& workspace) const {
  if (sample.reject) return;
  State state{workspace, sample.bytes, sample.image.view(), sample.geometry};
  if (sample.image.shape().bytes() == 0) state.image = {};
  const SampleRef about{sample.item, sample.info.epoch};
  StageClock& clock = *workspace.clock;
  clock.start();
  state.at = static_cast<std::size_t>(segment.first + 1);
  try {
    int index = segment.first;
    if (index < 0) {
      read(sample, state);
      index = 0;
    }
    while (index < segment.last && !sample.reject) {
      const Node* node = chosen(index, sample);
      if (node == nullptr) {
        ++index;
        continue;
      }
      state.at = number_of(*node);
      if (node->info->geometric) {
        index = run_geometric(index, segment.last, sample, state);
      } else {
        run_stage(index, *node, sample, state);
        ++index;
      }
    }
    if (sample.reject) return;
    if (segment.last == n_links_ && !sample.keeps_image) {
      if (deliver(sample, state)) clock.lap(state.at, 0, about);
    } else if (!state.image.empty()) {
      // Another thread may go on: the pixels must leave this thread's workspace.
      cut_region(state);
      Image pixels(state.image.height, state.image.width);
      copy_image(state.image, pixels.view());
      sample.image = std::move(pixels);
      clock.lap(state.at, 0, about);
    } else {
      sample.bytes.assign(state.bytes.begin(), state.bytes.end());
      clock.lap(state.at, 0, about);
    }
    sample.geometry = state.geometry;
  } catch (const SampleError& error) {
    clock.lap(state.at, 1, about);
    sample.reject = Reject{sample.info.key, addresses_[state.at], error.what(), false};
  } catch (const std::exception& error) {
    const auto* own = dynamic_cast<const Error*>(&error);
    throw Error(own != nullptr ? own->exit_code() : ExitCode::kRunFailed,
                "stage '" + addresses_[state.at] + "' failed on sample '" + sample.info.key +
                    "' (epoch " + std::to_string(sample.info.epoch + 1) + "): " + error.what());
  } catch (...) {
    throw RunError("stage '" + addresses_[state.at] + "' failed on sample '" + sample.info.key +
                   "': it threw something that is no std::exception");
  }
}

void TransformChain::read(Sample& sample, State& state) const {
  Output output(state, events_, slot_after(-1, sample), state.workspace.bytes);
  source_.read(sample.item, output);
  output.commit(sample, source_address_);
  state.workspace.clock->lap(0, 1, {sample.item, sample.info.epoch});
  if (observer_ && !sample.reject) {
    observer_(source_address_, {sample.info, state.bytes, state.image, state.geometry});
  }
}

void TransformChain::run_stage(int index, const Node& node, Sample& sample, State& state) const {
  if (!node.stage->reads_region()) cut_region(state);
  Rng rng = rng_for(node, sample);
  Output output(state, events_, slot_after(index, sample), state.workspace.bytes);
  node.stage->process({sample.info, state.bytes, state.image, state.geometry}, rng, output);
  output.commit(sample, node.address);
  state.workspace.clock->lap(state.at, 1, {sample.item, sample.info.epoch});
  if (observer_ && !sample.reject) {
    observer_(node.address, {sample.info, state.bytes, state.image, state.geometry});
  }
}

int TransformChain::run_geometric(int first, int last, Sample& sample, State& state) const {
  int end = first;
  const Node* last_node = nullptr;
  Affine map;
  cut_region(state);
  ImageShape shape = state.image.shape();
  for (; end < last; ++end) {
    const Node* node = chosen(end, sample);
    if (node == nullptr) continue;
    if (!node->info->geometric) break;
    state.at = number_of(*node);
    Rng rng = rng_for(*node, sample);
    map = compose(map, node->stage->matrix(shape, rng));
    shape = node->stage->output_shape(shape);
    last_node = node;
    state.workspace.clock->lap(state.at, 1, {sample.item, sample.info.epoch});
    for (const double value : map.m) {
      if (!std::isfinite(value)) throw std::runtime_error("its matrix is not finite");
    }
    if (observer_) {
      Image so_far(shape.height, shape.width);
      warp_affine(state.image, map, so_far.view());
      observer_(node->address, {sample.info, {}, so_far.view(), Geometry::whole(shape)});
    }
  }
  if (!map.is_identity() || shape != state.image.shape()) {
    Output output(state, events_, slot_after(end - 1, sample), state.workspace.bytes);
    warp_affine(state.image, map, output.image(shape.height, shape.width));
    output.commit(sample, last_node->address);
    state.workspace.clock->lap(state.at, 0, {sample.item, sample.info.epoch});
  }
  return end;
}

ConstImageView cut_to_region(ConstImageView image, const Geometry& geometry) {
  if (image.empty() || geometry.source_width == 0 || geometry.is_whole()) return image;
  const RectF region = geometry.region_in(image.shape());
  const int x0 = std::clamp(static_cast<int>(std::floor(region.x)), 0, image.width - 1);
  const int y0 = std::clamp(static_cast<int>(std::floor(region.y)), 0, image.height - 1);
  const int x1 =
      std::clamp(static_cast<int>(std::ceil(region.x + region.width)), x0 + 1, image.width);
  const int y1 =
      std::clamp(static_cast<int>(std::ceil(region.y + region.height)), y0 + 1, image.height);
  // A view into the same pixels is enough: stages read strided images.
  return {image.row(y0) + static_cast<std::ptrdiff_t>(x0) * kChannels, y1 - y0, x1 - x0,
          image.stride};
}

void TransformChain::cut_region(State& state) const {
  if (state.image.empty() || state.geometry.source_width == 0 || state.geometry.is_whole()) return;
  state.image = cut_to_region(state.image, state.geometry);
  state.geometry = Geometry::whole(state.image.shape());
}

bool TransformChain::deliver(Sample& sample, State& state) const {
  if (!sample.slab) return false;
  cut_region(state);
  if (state.image.shape() != output_shape_) {
    throw std::runtime_error("its output has " + to_string(state.image.shape()) +
                             " pixels, but it declared " + to_string(output_shape_));
  }
  const ImageView slot = slot_after(n_links_ - 1, sample);
  if (slot.data == state.image.data) return false;
  copy_image(state.image, slot);
  return true;
}

}  // namespace gp
