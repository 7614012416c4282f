#include <algorithm>
#include <cctype>
#include <chrono>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "pipeline/error.hpp"
#include "pipeline/log.hpp"
#include "stages/data/hdf5/hdf5_handle.hpp"
#include "stages/data/hdf5/shard_set_writer.hpp"
#include "stages/data/hdf5/shard_stages.hpp"

namespace gp {
namespace {

constexpr std::size_t kShownReasons = 10;

std::vector<std::string> split_lines(const std::string& text) {
  std::vector<std::string> lines;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    if (end > at) lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

std::string decimal(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

std::string minutes(double seconds) {
  const auto whole = static_cast<long>(seconds + 0.5);
  char text[64];
  std::snprintf(text, sizeof text, "%ld:%02ld", whole / 60, whole % 60);
  return text;
}

/// Rejects and drops by reason. Reasons that differ only in numbers, or in what stands in brackets,
/// are one group.
class RejectGroups {
 public:
  void add(const Reject& reject) {
    const std::string text =
        (reject.dropped ? "dropped by " : "") + reject.stage + ": " + reject.reason;
    const std::string general = generalized(text);
    const auto [found, is_new] = groups_.try_emplace(general, Group{0, text});
    ++found->second.count;
    if (found->second.text != text) found->second.text = general;
  }

  /// "17 x image.decode: truncated ..", the largest groups first.
  std::vector<std::string> lines() const {
    std::vector<Group> sorted;
    for (const auto& [general, group] : groups_) sorted.push_back(group);
    std::stable_sort(sorted.begin(), sorted.end(),
                     [](const Group& a, const Group& b) { return a.count > b.count; });
    std::vector<std::string> lines;
    for (std::size_t i = 0; i < std::min(sorted.size(), kShownReasons); ++i) {
      lines.push_back(std::to_string(sorted[i].count) + " x " + sorted[i].text);
    }
    if (sorted.size() > kShownReasons) {
      lines.push_back("and " + std::to_string(sorted.size() - kShownReasons) + " other reasons");
    }
    return lines;
  }

 private:
  struct Group {
    std::uint64_t count = 0;
    std::string text;  ///< the one reason of all, or what they have in common
  };

  /// `text` with "#" for each word that holds a digit and ".." for what stands in brackets.
  static std::string generalized(const std::string& text) {
    const auto in_word = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; };
    std::string result;
    int depth = 0;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t begin = at;
      while (at < text.size() && in_word(text[at])) ++at;
      const std::string word = text.substr(begin, at - begin);
      const bool number = word.find_first_of("0123456789") != std::string::npos;
      if (depth == 0) result += number ? "#" : word;
      if (at == text.size()) break;
      const char c = text[at++];
      if (c == ')' && depth > 0) --depth;
      if (depth == 0) result += c;
      if (c == '(' && depth++ == 0) result += "..";
    }
    return result;
  }

  std::map<std::string, Group> groups_;
};

class ShardSink : public EndStage {
 public:
  ShardSink(std::filesystem::path root, int images_per_shard, bool rebuild)
      : root_(std::move(root)), images_per_shard_(images_per_shard), rebuild_(rebuild) {}

  void run(EndContext& context) override {
    if (!context.stream.shape.fixed()) {
      throw ConfigError(
          "sink.shards: the images have different sizes, a shard holds one size; put an "
          "image.resize before it");
    }
    if (context.max_steps != 0) {
      throw ConfigError(
          "sink.shards: --max-steps would make a part of the data look like all of it; use a "
          "smaller split instead");
    }
    const ShardSetSpec spec = make_spec(context);
    const FolderLock lock(
        root_, "another process is writing shards here; wait for it, or choose another root");
    recover_shards(root_);
    if (!rebuild_ && nothing_to_do(spec, context.log)) return;
    try {
      write(spec, context);
    } catch (const hdf5::Failure& error) {
      throw RunError(error.what());  // a full disk, say: the data are not at fault
    }
  }

 private:
  ShardSetSpec make_spec(const EndContext& context) const {
    ShardSetSpec spec;
    spec.shape = context.stream.shape;
    spec.class_names = context.stream.class_names;
    spec.source_digest = context.stream.data_digest;
    spec.images_per_shard = images_per_shard_;
    spec.expected_images = context.stream.source_size;
    // Of this stage only what decides on the bytes: not whether they are to be made again.
    for (std::string& line : split_lines(context.run.preprocessing)) {
      if (!line.starts_with("sink.shards")) spec.preprocessing.push_back(std::move(line));
    }
    spec.preprocessing.push_back(
        "sink.shards {images_per_shard: " + std::to_string(images_per_shard_) + "}");
    return spec;
  }

  /// Whether the folder holds the result already. Throws where it holds another one.
  bool nothing_to_do(const ShardSetSpec& spec, Log& log) const {
    const ShardSetState state = inspect_shards(root_, spec);
    if (!state.difference.empty()) {
      std::string lines;
      for (const std::string& line : state.difference) lines += "\n  " + line;
      throw ConfigError(root_.string() +
                        ": holds shards that were made otherwise (- then, + now):" + lines +
                        "\n  Choose another root, or replace them: gan-prep build CONFIG "
                        "--rebuild");
    }
    if (!state.damage.empty()) {
      log.warn(root_.string() + ": " + state.damage + "; writing all shards again");
    }
    if (!state.finished) return false;
    log.info(root_.string() + ": up to date, " + std::to_string(state.finished->images) +
             " images in " + std::to_string(state.finished->shards.size()) +
             " shards; nothing to do (--rebuild writes them again)");
    return true;
  }

  void write(const ShardSetSpec& spec, EndContext& context) const {
    const auto start = std::chrono::steady_clock::now();
    const auto elapsed = [&] {
      return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    ShardSetWriter writer(root_, spec);
    RejectGroups rejects;
    EpochCounts counts;
    bool complete = false;
    try {
      while (!complete) {
        if (context.stop.stop_requested()) return interrupted(context.log);
        const std::shared_ptr<const Batch> batch = context.batches.next();
        if (batch == nullptr) {
          if (context.stop.stop_requested()) return interrupted(context.log);
          throw RunError("sink.shards: the stream ended before the epoch did");
        }
        const std::size_t bytes = static_cast<std::size_t>(batch->count) * spec.shape.bytes();
        if (batch->count > 0) {
          writer.append({batch->pixels.get(), bytes}, batch->keys, batch->labels);
        }
        for (const Reject& reject : batch->rejects) {
          writer.reject(reject);
          rejects.add(reject);
        }
        counts = batch->counts;
        complete = batch->end_of_epoch;
        show_progress(counts, spec.expected_images, elapsed(), context.log);
      }
      if (!counts.balanced() || counts.dropped_last != 0 || writer.images() != counts.batched) {
        throw RunError("sink.shards: images got lost: read " + std::to_string(counts.read) +
                       ", written " + std::to_string(writer.images()) + ", rejected " +
                       std::to_string(counts.rejected) + ", dropped " +
                       std::to_string(counts.dropped_by_stage + counts.dropped_last));
      }
      report(writer.finish(counts.read), rejects, elapsed(), context.log);
    } catch (const hdf5::Failure&) {
      throw;
    } catch (const DataError&) {
      writer.keep_rejects();
      throw;
    }
  }

  static void show_progress(const EpochCounts& counts, std::uint64_t expected, double seconds,
                            Log& log) {
    const double done = static_cast<double>(std::max<std::uint64_t>(counts.read, 1));
    const double rest = std::max(static_cast<double>(expected) - done, 0.0);
    log.progress("shards: " + std::to_string(counts.read) + "/" + std::to_string(expected) +
                 " images, " + decimal(done / std::max(seconds, 1e-9), 0) + " images/s, ETA " +
                 minutes(rest * seconds / done) + ", " + std::to_string(counts.rejected) +
                 " rejected");
  }

  void interrupted(Log& log) const {
    log.info(root_.string() +
             ": interrupted; nothing in it was changed, the same command starts the build again");
  }

  void report(const Manifest& manifest, const RejectGroups& rejects, double seconds,
              Log& log) const {
    const std::size_t shards = manifest.shards.size();
    log.info(root_.string() + ": read " + std::to_string(manifest.read) + ", written " +
             std::to_string(manifest.images) + " images in " + std::to_string(shards) +
             (shards == 1 ? " shard (" : " shards (") +
             decimal(static_cast<double>(manifest.shard_bytes()) / 1e6, 1) + " MB), rejected " +
             std::to_string(manifest.total_rejected()) + ", dropped " +
             std::to_string(manifest.total_dropped()) + "; " + decimal(seconds, 1) + " s, " +
             decimal(static_cast<double>(manifest.read) / std::max(seconds, 1e-9), 0) +
             " images/s");
    const std::vector<std::string> lines = rejects.lines();
    for (const std::string& line : lines) log.info("  " + line);
    if (!lines.empty()) log.info("  one by one in " + (root_ / kRejectsFile).string());
  }

  std::filesystem::path root_;
  int images_per_shard_;
  bool rebuild_;
};

}  // namespace

StageInfo sink_shards_info() {
  StageInfo info;
  info.name = "sink.shards";
  info.doc = "Writes the images as HDF5 shards with checksums, which source.shards and h5py read";
  info.in = Kind::kImage;
  info.out = Kind::kNothing;
  info.concurrency = Concurrency::kSerial;
  info.params.path("root", "folder to write to; one for each split")
      .integer("images_per_shard", kMaxImagesPerShard, "images in one file", 1, kMaxImagesPerShard)
      .flag("rebuild", false, "replace shards that are there already (gan-prep build --rebuild)");
  info.create = [](const Params& params) -> std::unique_ptr<Stage> {
    return std::make_unique<ShardSink>(params.text("root"),
                                       static_cast<int>(params.integer("images_per_shard")),
                                       params.flag("rebuild"));
  };
  return info;
}

}  // namespace gp
