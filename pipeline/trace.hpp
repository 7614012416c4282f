#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace gp {

/// The sample that a span of a trace is about.
struct SampleRef {
  static constexpr std::uint64_t kNone = ~std::uint64_t{0};
  std::uint64_t item = kNone;  ///< number within the source
  std::uint32_t epoch = 0;     ///< counted from 0
};

/// What happened when on which thread: spans on tracks, written as Chrome's trace format, which
/// Perfetto and chrome://tracing open. Tracks are added by any thread; each is written by one.
///
/// The number of spans is limited (40 bytes each): later ones are left out.
class Trace {
 public:
  using Clock = std::chrono::steady_clock;

  /// One thread's row.
  class Track {
   public:
    Track(Trace& trace, std::string name) : trace_(trace), name_(std::move(name)) {}
    /// `name` comes from Trace::name.
    void add(std::uint32_t name, Clock::time_point start, Clock::time_point end,
             SampleRef about = {});

   private:
    friend class Trace;
    struct Span {
      Clock::time_point start;
      Clock::time_point end;
      SampleRef about;
      std::uint32_t name = 0;
    };
    Trace& trace_;
    std::string name_;
    std::vector<Span> spans_;
  };

  explicit Trace(std::int64_t max_spans = 1'000'000) : room_(max_spans) {}

  /// The number that stands for a span's name.
  std::uint32_t name(const std::string& text);
  /// A new row, which lives as long as the trace.
  Track& add_track(const std::string& name);
  /// Whether spans were left out.
  bool full() const { return room_.load() < 0; }

  /// Writes the file, once no track is written any more; `key_of` gives the key of an item.
  /// Throws RunError.
  void write(const std::filesystem::path& file,
             const std::function<std::string(std::uint64_t item)>& key_of) const;

 private:
  std::mutex mutex_;  ///< of names and the list of tracks
  std::map<std::string, std::uint32_t> names_;
  std::deque<Track> tracks_;
  std::atomic<std::int64_t> room_;
  Clock::time_point start_ = Clock::now();
};

}  // namespace gp
