#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "pipeline/batch.hpp"
#include "pipeline/image.hpp"
#include "pipeline/param_schema.hpp"
#include "pipeline/rng.hpp"

namespace gp {

class Log;

/// What flows along an edge of the graph.
enum class Kind { kNothing, kBytes, kImage, kBatch, kSnapshot };
std::string to_string(Kind kind);

enum class Concurrency {
  kUnlimited,  ///< `process` may run on several threads at once
  kSerial      ///< one sample at a time
};

/// Common base; owned by the graph, made by StageInfo::create.
class Stage {
 public:
  virtual ~Stage() = default;
};

/// Identity of the sample being processed.
struct SampleInfo {
  std::string key;  ///< unique within the source
  std::uint64_t key_hash = 0;
  std::int32_t label = -1;
  std::uint32_t epoch = 0;
};

/// What a stage reads. Valid during the call only.
struct StageInput {
  const SampleInfo& sample;
  std::span<const std::uint8_t> bytes;  ///< Kind::kBytes
  ConstImageView image;                 ///< Kind::kImage
  Geometry geometry;                    ///< of `image`; for bytes see StageOutput::set_geometry
};

/// What a stage writes; the host owns all memory. Exactly one of image(), bytes(), pass_through()
/// or drop() is called.
class StageOutput {
 public:
  virtual ~StageOutput() = default;
  /// Memory for an image of this shape: the sample's place in the batch where this is the last
  /// stage, otherwise a recycled buffer. Contents are unspecified.
  virtual ImageView image(int height, int width) = 0;
  /// An empty, recycled byte buffer to fill (sources).
  virtual std::vector<std::uint8_t>& bytes() = 0;
  /// The output is the input, untouched and not copied; `set_geometry` may still narrow its region.
  virtual void pass_through() = 0;
  /// The geometry of the output. Not called: the whole of the new image, or the input's where the
  /// stage passes it through. With bytes() only its region counts: the part of the picture as it is
  /// stored that is wanted, pixels, for the decoder to start from; an empty one for all of it.
  virtual void set_geometry(const Geometry& geometry) = 0;
  /// The sample leaves the pipeline on purpose (counted apart from errors). May follow image().
  virtual void drop(std::string reason) = 0;
  /// Counts an event worth knowing at the end, such as "CMYK converted".
  virtual void count(const std::string& event) = 0;
};

/// How large an image the stages downstream need, so that a decoder may deliver less than full
/// size. Derived by the graph builder from the stages between decoder and next resize.
struct SizeDemand {
  bool full = true;   ///< nobody downstream says: deliver full size
  ImageShape region;  ///< the region that remains must have at least this many pixels
  double crop_left = 0, crop_top = 0, crop_right = 0, crop_bottom = 0;  ///< source pixels cut off
};

/// One sample in, one sample out: a pure function of (input, parameters, rng).
class TransformStage : public Stage {
 public:
  /// Throws SampleError when the sample is bad; any other exception is a fault of the stage.
  virtual void process(const StageInput& in, Rng& rng, StageOutput& out) const = 0;
  /// The shape of the output for an input of shape `in` (0 where it differs between samples).
  virtual ImageShape output_shape(ImageShape in) const { return in; }
  /// True when process() looks at geometry.region; other stages get the region cut out.
  virtual bool reads_region() const { return false; }
  /// What this stage needs of its input, given what is needed of its output. The default needs
  /// full size.
  virtual SizeDemand demand(const SizeDemand& of_output) const;
  /// Told once, before the first sample, what the stages downstream need.
  virtual void set_demand(const SizeDemand& /*of_output*/) {}
  /// Geometric stages (StageInfo::geometric) give their map instead of pixels, with the same draws
  /// from `rng` as process(), so that the host composes neighbours into one resampling.
  virtual Affine matrix(ImageShape /*in*/, Rng& /*rng*/) const { return {}; }
};

/// Where samples come from. Thread-safe; items are addressed by number.
class SourceStage : public Stage {
 public:
  virtual std::uint64_t size() const = 0;
  /// Unique, stable across machines: part of orders, seeds and digests.
  virtual std::string key(std::uint64_t item) const = 0;
  virtual std::int32_t label(std::uint64_t /*item*/) const { return -1; }
  virtual const std::vector<std::string>& class_names() const;
  /// Delivers the item (bytes or image, as the contract says). Throws SampleError for a bad item.
  virtual void read(std::uint64_t item, StageOutput& out) const = 0;
  virtual ImageShape output_shape() const { return {}; }
  /// SHA-256 over what the items are; see digest.hpp.
  virtual std::string digest() const = 0;
};

/// A trained state, frozen: what train.* hands to evaluate.* stages and to `sample`.
/// Not thread-safe. Neither call changes the trainer's state or random numbers.
class Snapshot {
 public:
  virtual ~Snapshot() = default;
  virtual std::uint64_t step() const = 0;
  virtual std::uint32_t epoch() const = 0;
  virtual std::uint64_t images() const = 0;
  virtual ImageShape shape() const = 0;
  /// Images `first` .. `first + count - 1` of the endless sequence that belongs to `seed`:
  /// uint8 NHWC, count * shape().bytes(). The same however it is cut into calls.
  virtual std::vector<std::uint8_t> generate(std::uint64_t seed, std::uint64_t first,
                                             int count) = 0;
  /// The discriminator's logits in evaluation mode for uint8 NHWC images of shape(). `labels`:
  /// [count], looked at where there are classes.
  virtual std::vector<float> discriminate(const std::uint8_t* images, const std::int32_t* labels,
                                          int count) = 0;
  /// Names of the classes of images that it draws on demand; none: it knows no classes.
  virtual std::vector<std::string> class_names() const { return {}; }
  /// The classes of generate()'s images, drawn by how often training saw them; -1 without classes.
  virtual std::vector<std::int32_t> labels(std::uint64_t /*seed*/, std::uint64_t /*first*/,
                                           int count) {
    return std::vector<std::int32_t>(static_cast<std::size_t>(count), -1);
  }
  /// As generate(), all of one class, an index of class_names().
  virtual std::vector<std::uint8_t> generate_class(std::uint64_t seed, std::uint64_t first,
                                                   int count, std::int32_t /*label*/) {
    return generate(seed, first, count);
  }
  /// SHA-256 of what defines it (for records); may be empty.
  virtual std::string digest() const { return {}; }
};

/// What every end stage knows of its run.
struct RunInfo {
  std::string name;
  std::uint64_t seed = 0;
  std::filesystem::path directory;  ///< the run directory; empty: nothing is written
  std::string device = "auto";      ///< auto | cpu | cuda | cuda:N
  std::string precision = "auto";   ///< auto | fp32 | bf16
  int threads = 1;                  ///< for the end's own thread pool
  std::string config_yaml;          ///< resolved
  /// What is done to the data, the same on every machine: one line a stage, source to end, as
  /// `image.resize {fit: squash, size: 128}`, parameters in the schema's order, defaults filled in,
  /// without parameters of type path and without run settings; behind it in brackets which code
  /// does it, where that is a plugin's (StageInfo::identity); where a stage is random, a last line
  /// `seed {value: 1}`. Results kept on disk (shards) are named after it.
  std::string preprocessing;
};

/// What an end stage knows of the batches it will get.
struct StreamInfo {
  ImageShape shape;
  int batch_size = 0;
  std::uint64_t source_size = 0;  ///< samples an epoch, before rejects
  std::vector<std::string> class_names;
  std::string data_digest;         ///< of what is delivered: source, filter, preprocessing
  std::string source_digest = {};  ///< of what the source's items are
  bool keep_last = false;          ///< the last batch of an epoch may be smaller
};

/// Opens further streams over the run's data: the source with its parameters overridden, stages
/// that are `random` left out, file order, nothing shuffled, nothing dropped at the end, one epoch.
class StreamFactory {
 public:
  virtual ~StreamFactory() = default;
  virtual std::unique_ptr<BatchStream> open(const std::map<std::string, std::string>& overrides,
                                            int batch_size) = 0;
  virtual StreamInfo info(const std::map<std::string, std::string>& overrides) = 0;
};

/// A training as a checkpoint holds it, to go on from. Each kind of trainer has its own state
/// behind it.
struct SavedTraining {
  virtual ~SavedTraining() = default;
  std::filesystem::path file;  ///< the checkpoint
  std::uint64_t step = 0;      ///< steps done
  StreamPosition position;     ///< behind the batch trained last
  int threads = 1;             ///< that trained it
  std::string config_yaml;     ///< resolved
  std::string data_digest;     ///< StreamInfo's
  std::string source_digest;
};

/// What train.* and sink.* run in.
struct EndContext {
  const RunInfo& run;
  StreamInfo stream;
  BatchStream& batches;
  Log& log;
  std::stop_token stop;         ///< asked to finish the step, save and return
  std::uint64_t max_steps = 0;  ///< 0: no limit
  /// Called by a trainer after each epoch (`epochs_done` counted from 1; `last` after the final
  /// one, which waits for all evaluations). `make` is called only when an evaluator is due.
  std::function<void(std::uint32_t epochs_done, bool last,
                     const std::function<std::unique_ptr<Snapshot>()>& make)>
      epoch_done;
  /// What a trainer goes on from, made by its load_training(); `batches` start at its position.
  /// Null: from the beginning.
  const SavedTraining* resume = nullptr;
};

/// The last stage of a graph's stream: pulls batches on a thread of its own, until the stream ends
/// or `stop` is asked for.
class EndStage : public Stage {
 public:
  virtual void run(EndContext& context) = 0;
  /// Refuses a stream that it can't use (ConfigError); asked before anything is written.
  virtual void check(const StreamInfo& /*stream*/) const {}
  /// How often the source is read through.
  virtual std::uint32_t epochs() const { return 1; }
  /// Ends that take images straight (sink.*) say how many they want at a time.
  virtual int batch_size() const { return 64; }
  /// Whether images may differ in size; a batch then ends where the shape changes.
  virtual bool takes_mixed_shapes() const { return false; }
};

/// A part of a training schedule, such as one resolution of progressive growing.
struct Phase {
  std::uint64_t images = 0;  ///< trained in this phase; the last phase goes on to the end
  /// Parameters of data stages that differ, e.g. {"image.resize.size": "64", "batch.size": "32"}.
  std::map<std::string, std::string> overrides;
  ImageShape shape = {};  ///< that its images have then, where the trainer takes no other
};

/// What a training step costs.
struct StepProfile {
  struct Part {
    std::string operation;
    double calls = 0;  ///< a step
    double seconds = 0;
  };
  std::string description;  ///< of the trainer, one line
  double seconds = 0;       ///< a step, while nobody watches: median over groups of equal cost
  int images = 0;           ///< a step
  std::vector<Part> parts;  ///< of one step, longest first; a part's own time
};

/// train.*: also knows how to bring a saved state back.
class TrainStage : public EndStage {
 public:
  /// Phases in order; none: the data stages stay as the configuration says. The engine checks all
  /// of them before anything runs, and starts a new graph at each boundary.
  virtual std::vector<Phase> schedule() const { return {}; }
  /// Images a second that training reaches on batches like `stream`'s with run.threads threads,
  /// measured on a model made for it and thrown away. 0: it can't say.
  virtual double measure_rate(const RunInfo& /*run*/, const StreamInfo& /*stream*/) { return 0; }
  /// Trains a model that is thrown away for about so many seconds after a warm-up, and says where
  /// the time of a step goes. No description: it can't say.
  virtual StepProfile profile(const RunInfo& /*run*/, const StreamInfo& /*stream*/,
                              double /*seconds*/) {
    return {};
  }
  virtual std::unique_ptr<Snapshot> load_snapshot(const RunInfo& run,
                                                  const std::filesystem::path& checkpoint) = 0;
  /// Writes the generator of a checkpoint alone, to be used elsewhere. Throws ConfigError where
  /// this kind of training has none, DataError and RunError.
  virtual void export_generator(const std::filesystem::path& checkpoint,
                                const std::filesystem::path& file);
  /// The newest checkpoint of a run directory that is whole; those that are not are told to `log`.
  /// Null where none was saved yet. Throws DataError where none can be used, and ConfigError where
  /// this kind of training cannot be resumed.
  virtual std::unique_ptr<SavedTraining> load_training(const std::filesystem::path& run_directory,
                                                       Log& log);
};

/// What evaluate.* runs in.
struct EvaluateContext {
  const RunInfo& run;
  StreamFactory& streams;
  Log& log;
  std::stop_token stop;
  /// Beside training: the steps of the snapshots that were due since the last evaluation and have
  /// been passed over, because this one came before their turn.
  std::vector<std::uint64_t> skipped = {};
};

/// One of two sets of images that are compared. Which of `open`, `snapshot` and `statistics` is set
/// says what it is.
struct ImageSet {
  std::string name;  ///< its path, for messages and records
  std::string kind;  ///< "folder", "archive", "shards", "run", "checkpoint" or "statistics"

  /// Images of any size, in an order that is always the same.
  std::function<std::unique_ptr<BatchStream>()> open;
  StreamInfo info;  ///< of what `open` gives
  /// Changes on this machine whenever its files do; info.data_digest may only know their sizes.
  std::string state;

  /// Images that a trained state draws: the first `count` that belong to `seed`.
  Snapshot* snapshot = nullptr;
  std::uint64_t seed = 0;
  int count = 0;

  /// What was saved of another set of images (.npz).
  std::filesystem::path statistics;
};

/// What EvaluateStage::compare is asked for.
struct Comparison {
  ImageSet judged;                    ///< takes the place of the fakes
  std::optional<ImageSet> reference;  ///< of the reals; none: only statistics are saved
  /// Where the statistics of `judged` go (.npz); empty: nowhere.
  std::filesystem::path save_statistics;
  bool use_cache = true;  ///< what was measured of the same images before need not be again
};

/// evaluate.*: measures a snapshot.
class EvaluateStage : public Stage {
 public:
  /// Looks at the data that evaluate() will read and refuses what it can't use (ConfigError,
  /// DataError, naming the parameter); asked before anything is written. `stream`: the trainer's.
  virtual void check(const StreamInfo& /*stream*/, StreamFactory& /*streams*/) const {}
  /// Whether to evaluate after `epochs_done` epochs.
  virtual bool due(std::uint32_t epochs_done, bool last) const = 0;
  /// Whether training waits for evaluate(). Otherwise that runs beside it on a thread of its own,
  /// one evaluation of this stage at a time; if several snapshots are due meanwhile, the last is
  /// taken.
  virtual bool blocking() const { return true; }
  /// Measures and returns one JSON object (a line of evaluation.jsonl); also tells `log`. Returns
  /// nothing when it was stopped.
  virtual std::string evaluate(Snapshot& snapshot, EvaluateContext& context) = 0;
  /// Compares two sets of images by what it measures of fakes and reals. Returns one JSON object,
  /// or nothing when it was stopped; tells `log`. Throws DataError when a set has fewer than two
  /// images, or what was read has no meaning.
  virtual std::string compare(const Comparison& comparison, const RunInfo& run, Log& log,
                              std::stop_token stop);
};

/// A kind of stage, as data, before any instance exists.
struct StageInfo {
  std::string name;  ///< "image.resize"
  std::string doc;   ///< one line
  Kind in = Kind::kNothing;
  Kind out = Kind::kNothing;
  bool random = false;     ///< draws from its rng: left out of evaluation
  bool geometric = false;  ///< TransformStage::matrix describes it completely
  Concurrency concurrency = Concurrency::kUnlimited;
  ParamSchema params;
  std::function<std::unique_ptr<Stage>(const Params&)> create;
  std::string origin;  ///< file that brought it; set by the registry
  /// Which code it is, where that may change while this program stays the same: "augment_noise
  /// 1.0.0, SHA-256 0f3c..." of a plugin, likewise of a module built elsewhere; else empty. Set by
  /// the loader; part of what names results kept on disk.
  std::string identity;
};

}  // namespace gp
