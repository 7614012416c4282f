#include "pipeline/graph_builder.hpp"

#include <algorithm>
#include <charconv>
#include <limits>

#include "pipeline/config_node.hpp"
#include "pipeline/error.hpp"
#include "pipeline/files.hpp"

namespace gp {
namespace {

constexpr const char* kFraction = "fraction";

bool is_transform(const StageInfo& info) {
  return info.in != Kind::kNothing && info.out == Kind::kImage;
}

/// Makes a stage and checks that it is what its contract says.
template <class T>
std::unique_ptr<T> make_stage(const StageConfig& stage, const Params& params) {
  const auto where = [&stage] { return stage.mark.text() + ": '" + stage.address + "': "; };
  std::unique_ptr<Stage> made;
  try {
    made = stage.info->create(params);
  } catch (const Error& error) {
    throw Error(error.exit_code(), where() + error.what());
  } catch (const std::exception& error) {
    throw PluginError(where() + "cannot be made: " + error.what());
  }
  T* typed = dynamic_cast<T*>(made.get());
  if (typed == nullptr) {
    throw PluginError(where() + "its class does not fit its contract (" +
                      to_string(stage.info->in) + " -> " + to_string(stage.info->out) +
                      "); whoever registered it in " + stage.info->origin + " must mend that");
  }
  made.release();
  return std::unique_ptr<T>(typed);
}

double parse_fraction(const std::string& text, const std::string& where) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !(value > 0 && value < 1)) {
    throw ConfigError(where + ": fraction = " + text + " is not a number between 0 and 1");
  }
  return value;
}

/// A stage and its parameters, without paths and without the source's error policy, and which code
/// it is. `params_of` gives the parameters of any stage.
std::string portable_params(const StageConfig& stage,
                            const std::function<Params(const StageConfig&)>& params_of) {
  std::string text;
  const Params params = params_of(stage);
  for (const ParamSpec& spec : stage.info->params.specs()) {
    if (spec.type == ParamType::kPath || !params.has(spec.name)) continue;
    text += text.empty() ? "" : ", ";
    text += spec.name + ": " + to_string(params.values().at(spec.name));
  }
  std::string choices;
  for (const StageConfig& choice : stage.choices) {
    choices += (choices.empty() ? "" : ", ") + to_string(Value(choice.weight)) + " " +
               portable_params(choice, params_of);
  }
  if (!choices.empty()) text += ", choices: [" + choices + "]";
  const std::string& code = stage.info->identity;
  return stage.use + " {" + text + "}" + (code.empty() ? "" : " [" + code + "]");
}

Params own_params(const StageConfig& stage) { return stage.params; }

/// Makes a transform, or all those that it chooses among; `path` owns them. `demand` is what its
/// output is needed for, and becomes what it needs of its input.
TransformChain::Link make_link(const StageConfig& stage,
                               const std::function<Params(const StageConfig&)>& params_of,
                               SizeDemand& demand, DataPath& path) {
  TransformChain::Link link{stage.address, nullptr, stage.info, {}, 1, stage.weight};
  const Params params = params_of(stage);
  if (stage.choices.empty()) {
    auto made = make_stage<TransformStage>(stage, params);
    made->set_demand(demand);
    demand = made->demand(demand);
    link.stage = made.get();
    path.transforms.push_back(std::move(made));
    return link;
  }
  link.p = params.real("p");
  for (const StageConfig& choice : stage.choices) {
    SizeDemand same = demand;
    link.choices.push_back(make_link(choice, params_of, same, path));
  }
  demand = {};  // whichever is chosen gets the full size
  return link;
}

/// "image.resize.size" -> stage "image.resize", parameter "size". `schedule` is whose they are.
StageOverrides by_stage(const Config& config, const std::map<std::string, std::string>& overrides,
                        const std::string& schedule) {
  StageOverrides result;
  for (const auto& [key, value] : overrides) {
    const std::size_t dot = key.rfind('.');
    const std::string address = key.substr(0, dot);
    if (dot == std::string::npos || config.find_stage(address) == nullptr) {
      std::vector<std::string> addresses;
      for (const StageConfig& stage : config.stages) addresses.push_back(stage.address);
      throw ConfigError(schedule + " sets '" + key +
                        "', and that is no parameter of a stage; expected STAGE.PARAMETER, such "
                        "as image.resize.size, of one of " +
                        joined(addresses));
    }
    result[address][key.substr(dot + 1)] = value;
  }
  return result;
}

std::string schedule_of(const StageConfig& trainer) {
  return trainer.mark.text() + ": the schedule of '" + trainer.address + "'";
}

/// A phase of a trainer's schedule, as far as it can be checked without the data.
struct CheckedPhase {
  StageOverrides overrides;
  int batch_size = 0;
};
CheckedPhase check_phase(const Config& config, const StageConfig& trainer, const Phase& phase) {
  const std::string schedule = schedule_of(trainer);
  CheckedPhase checked{by_stage(config, phase.overrides, schedule)};
  for (const StageConfig& stage : config.stages) {
    const auto found = checked.overrides.find(stage.address);
    Params params = stage.params;
    if (found != checked.overrides.end()) params = override_params(stage, found->second, schedule);
    if (stage.use == kBatchStage) checked.batch_size = static_cast<int>(params.integer("size"));
  }
  const std::int64_t needed = config.run.least_in_flight(checked.batch_size);
  if (config.run.max_in_flight < needed) {
    throw ConfigError(schedule + " has batches of " + std::to_string(checked.batch_size) +
                      ", and with prefetch " + std::to_string(config.run.prefetch) +
                      " they need run: {max_in_flight: " + std::to_string(needed) + "} or more");
  }
  return checked;
}

/// An evaluation's stream with the stages it runs on.
class OwningStream : public BatchStream {
 public:
  OwningStream(DataPath path, const GraphOptions& options)
      : path_(std::move(path)), stream_(*path_.source, *path_.chain, path_.order, options) {}
  std::shared_ptr<const Batch> next() override { return stream_.next(); }
  double seconds_waited() const override { return stream_.seconds_waited(); }

 private:
  DataPath path_;
  GraphStream stream_;
};

}  // namespace

void try_stages(const Config& config) {
  std::string problems;
  ExitCode exit_code = ExitCode::kUsage;
  const std::function<void(const StageConfig&)> try_stage = [&](const StageConfig& stage) {
    for (const StageConfig& choice : stage.choices) try_stage(choice);
    const bool is_engine = stage.use == kBatchStage || !stage.choices.empty();
    if (is_engine || stage.info->in == Kind::kNothing) return;
    try {
      const auto made = make_stage<Stage>(stage, stage.params);
      if (const auto* trainer = dynamic_cast<const TrainStage*>(made.get())) {
        for (const Phase& phase : trainer->schedule()) check_phase(config, stage, phase);
      }
    } catch (const Error& error) {
      if (error.exit_code() == ExitCode::kData) return;
      if (problems.empty()) exit_code = error.exit_code();
      problems += (problems.empty() ? "" : "\n") + std::string(error.what());
    }
  };
  for (const StageConfig& stage : config.stages) try_stage(stage);
  if (!problems.empty()) throw Error(exit_code, problems);
}

Pipeline::Pipeline(Config config) : config_(std::move(config)) {
  for (const StageConfig& stage : config_.stages) {
    const StageInfo& info = *stage.info;
    if (stage.use == kBatchStage) {
      batch_size_ = static_cast<int>(stage.params.integer("size"));
      keep_last_ = stage.params.text("last") == "keep";
    } else if (info.in == Kind::kSnapshot) {
      for (const ParamSpec& spec : info.params.specs()) {
        if (spec.type != ParamType::kOverrides || !stage.params.has(spec.name)) continue;
        const auto& overrides = stage.params.overrides(spec.name);
        const auto fraction = overrides.find(kFraction);
        if (fraction == overrides.end()) continue;
        // Where two evaluators hold out different shares, the larger one contains the other.
        held_out_fraction_ =
            std::max(held_out_fraction_,
                     parse_fraction(fraction->second, stage.mark.text() + ": " + spec.name));
      }
    }
  }
  data_ = make_data_path({}, false);
  for (const StageConfig& stage : config_.stages) {
    const StageInfo& info = *stage.info;
    if (info.in == Kind::kSnapshot) {
      evaluators_.push_back({stage.address, make_stage<EvaluateStage>(stage, stage.params)});
    } else if (info.out == Kind::kSnapshot || info.out == Kind::kNothing) {
      end_ = make_stage<EndStage>(stage, stage.params);
      end_address_ = stage.address;
      end_is_sink_ = info.out == Kind::kNothing;
      if (end_is_sink_) {
        keep_last_ = true;
        if (info.in == Kind::kImage) batch_size_ = end_->batch_size();
      }
    }
  }
  if (end_) {
    if (!data_.chain->output_shape().fixed() && !end_->takes_mixed_shapes()) {
      throw ConfigError(config_.find_stage(end_address_)->mark.text() + ": '" + end_address_ +
                        "': takes images of one size, and these have different ones; put "
                        "image.resize before it");
    }
    try {
      end_->check(stream_info());
    } catch (const ConfigError& error) {
      throw ConfigError(config_.find_stage(end_address_)->mark.text() + ": " + error.what());
    }
  }
  if (const auto* trainer = dynamic_cast<const TrainStage*>(end_.get())) {
    const StageConfig& stage = *config_.find_stage(end_address_);
    for (const Phase& phase : trainer->schedule()) {
      const CheckedPhase checked = check_phase(config_, stage, phase);
      PreparedPhase prepared{phase.images, checked.batch_size,
                             make_data_path(checked.overrides, false)};
      if (const ImageShape shape = prepared.data.chain->output_shape();
          phase.shape.fixed() && shape != phase.shape) {
        std::vector<std::string> set;
        for (const auto& [key, value] : phase.overrides) set.push_back(key + " = " + value);
        throw ConfigError(schedule_of(stage) + " has a phase of images of " +
                          to_string(phase.shape) + ", and with " + joined(set) + " they are " +
                          to_string(shape) +
                          "; let it set the parameter that decides their size in the end, such "
                          "as image.resize.size");
      }
      if (!keep_last_ &&
          prepared.data.order->size() < static_cast<std::uint64_t>(prepared.batch_size)) {
        throw DataError(schedule_of(stage) + " has batches of " +
                        std::to_string(prepared.batch_size) + ", and the source has only " +
                        std::to_string(prepared.data.order->size()) + " samples");
      }
      phases_.push_back(std::move(prepared));
    }
  }
  if (!keep_last_ && end_ && data_.order->size() < static_cast<std::uint64_t>(batch_size_)) {
    throw DataError("the source has " + std::to_string(data_.order->size()) +
                    " samples, fewer than one batch of " + std::to_string(batch_size_) +
                    ": no step could be trained. Lower stages.batch.size or give more data.");
  }
  for (const Evaluator& evaluator : evaluators_) {
    try {
      evaluator.stage->check(stream_info(), *this);
    } catch (const Error& error) {
      throw Error(error.exit_code(), config_.find_stage(evaluator.address)->mark.text() + ": '" +
                                         evaluator.address + "': " + error.what());
    }
  }
}

std::vector<const DataPath*> Pipeline::phases() const {
  std::vector<const DataPath*> result;
  for (const PreparedPhase& phase : phases_) result.push_back(&phase.data);
  return result;
}

StageOverrides Pipeline::for_source(const std::map<std::string, std::string>& overrides) const {
  return {{config_.stages.front().address, overrides}};
}

DataPath Pipeline::make_data_path(const StageOverrides& overrides, bool for_evaluation) const {
  double fraction = 0;
  const std::function<Params(const StageConfig&)> params_of = [&](const StageConfig& stage) {
    const auto found = overrides.find(stage.address);
    if (found == overrides.end()) return stage.params;
    std::map<std::string, std::string> values = found->second;
    if (const auto share = values.find(kFraction); share != values.end()) {
      fraction = parse_fraction(share->second, stage.mark.text());
      values.erase(share);
    }
    return override_params(stage, values, "override of " + stage.mark.text());
  };

  DataPath path;
  const StageConfig& source = config_.stages.front();
  path.source = make_stage<SourceStage>(source, params_of(source));
  std::string recipe = portable_params(source, params_of) + "\n";

  std::vector<const StageConfig*> transforms;
  for (const StageConfig& stage : config_.stages) {
    if (!is_transform(*stage.info) || (for_evaluation && stage.info->random)) continue;
    transforms.push_back(&stage);
    recipe += portable_params(stage, params_of) + "\n";
  }
  std::vector<TransformChain::Link> links;
  SizeDemand demand;
  for (auto stage = transforms.rbegin(); stage != transforms.rend(); ++stage) {
    links.insert(links.begin(), make_link(**stage, params_of, demand, path));
  }
  path.chain = std::make_unique<TransformChain>(*path.source, source.address, std::move(links),
                                                config_.seed);

  SampleOrder::KeyFilter keep;
  if (fraction > 0) {
    keep = [fraction](std::uint64_t key) { return is_held_out(key, fraction); };
    recipe += "held out: " + std::to_string(fraction) + "\n";
  } else if (held_out_fraction_ > 0) {
    keep = [share = held_out_fraction_](std::uint64_t key) { return !is_held_out(key, share); };
    recipe += "without held out: " + std::to_string(held_out_fraction_) + "\n";
  }
  const bool trains =
      std::any_of(config_.stages.begin(), config_.stages.end(),
                  [](const StageConfig& stage) { return stage.info->out == Kind::kSnapshot; });
  path.order =
      std::make_shared<SampleOrder>(*path.source, config_.seed, trains && !for_evaluation, keep);
  path.digest = sha256_hex(path.source->digest() + "\n" + recipe);
  return path;
}

/// One graph for each phase of the schedule; the next one starts where the last batch of the one
/// before ended, so no sample is lost or trained twice.
class Pipeline::PhasedStream : public BatchStream {
 public:
  PhasedStream(const std::vector<PreparedPhase>& phases, GraphOptions options)
      : phases_(phases), options_(options), images_(options.start.images) {
    for (; ends_with(images_); ++phase_) images_ -= phases_[phase_].images;
    open();
  }
  std::shared_ptr<const Batch> next() override {
    if (ends_with(images_)) {
      waited_ += stream_->seconds_waited();
      stream_.reset();  // drains: what was in flight is read again by the next graph
      // Phases shorter than the last batch are over before they begin, as after a resume.
      for (; ends_with(images_); ++phase_) images_ -= phases_[phase_].images;
      open();
    }
    std::shared_ptr<const Batch> batch = stream_->next();
    if (batch) {
      images_ += static_cast<std::uint64_t>(batch->count);
      if (batch->count > 0) options_.start = {batch->epoch, batch->next, batch->counts};
      if (batch->end_of_epoch) options_.start = {batch->epoch + 1};
    }
    return batch;
  }
  double seconds_waited() const override { return waited_ + stream_->seconds_waited(); }

 private:
  /// Whether the current phase is over after so many of its images, and another one comes.
  bool ends_with(std::uint64_t images) const {
    return phase_ + 1 < phases_.size() && images >= phases_[phase_].images;
  }
  void open() {
    const PreparedPhase& phase = phases_[phase_];
    options_.batch_size = phase.batch_size;
    stream_ = std::make_unique<GraphStream>(*phase.data.source, *phase.data.chain, phase.data.order,
                                            options_);
  }

  const std::vector<PreparedPhase>& phases_;
  GraphOptions options_;
  std::size_t phase_ = 0;
  std::uint64_t images_;  ///< of the current phase
  double waited_ = 0;
  std::unique_ptr<GraphStream> stream_;
};

GraphOptions Pipeline::graph_options(int threads, int batch_size) const {
  GraphOptions options;
  options.threads = threads;
  options.max_in_flight = std::max(config_.run.max_in_flight, 2 * batch_size);
  options.batch_size = batch_size;
  options.policy = config_.rejects;
  return options;
}

std::unique_ptr<BatchStream> Pipeline::open_stream(int threads, Trace* trace,
                                                   StreamPosition start) const {
  GraphOptions options = graph_options(threads, batch_size_);
  options.trace = trace;
  options.end = end_address_;
  options.epochs = end_ ? end_->epochs() : 1;
  options.start = start;
  options.keep_last = keep_last_;
  options.mixed_shapes = end_ && end_->takes_mixed_shapes();
  if (!phases_.empty()) return std::make_unique<PhasedStream>(phases_, options);
  return std::make_unique<GraphStream>(*data_.source, *data_.chain, data_.order, options);
}

std::unique_ptr<GraphStream> Pipeline::open_endless(int threads) const {
  GraphOptions options = graph_options(threads, batch_size_);
  options.epochs = std::numeric_limits<std::uint32_t>::max();
  options.keep_last = keep_last_;
  options.discard = cut_off_;
  return std::make_unique<GraphStream>(*data_.source, *data_.chain, data_.order, options);
}

void Pipeline::cut_off_after(const std::string& address) {
  std::vector<std::string> names;
  for (const StageConfig& stage : config_.stages) {
    if (stage.use == kBatchStage || !(names.empty() || is_transform(*stage.info))) break;
    names.push_back(stage.address);
    if (stage.address != address) continue;
    cut_off_ = true;
    data_.chain->cut_off(static_cast<int>(names.size()) - 1);
    return;
  }
  const std::string near = nearest_name(address, names);
  throw ConfigError(config_.path.string() + ": '" + address + "' is no data stage of it" +
                    (near.empty() ? "" : "; did you mean '" + near + "'?") + " Expected one of " +
                    joined(names));
}

StreamInfo Pipeline::describe(const DataPath& path, int batch_size) const {
  return {path.chain->output_shape(), batch_size,  path.order->size(),
          path.source->class_names(), path.digest, path.source->digest()};
}

StreamInfo Pipeline::stream_info() const {
  StreamInfo info = describe(data_, batch_size_);
  info.keep_last = keep_last_;
  return info;
}

StreamInfo Pipeline::info(const std::map<std::string, std::string>& overrides) {
  return describe(make_data_path(for_source(overrides), true), 0);
}

std::unique_ptr<BatchStream> Pipeline::open(const std::map<std::string, std::string>& overrides,
                                            int batch_size) {
  GraphOptions options = graph_options(evaluation_threads_, batch_size);
  options.keep_last = true;
  return std::make_unique<OwningStream>(make_data_path(for_source(overrides), true), options);
}

std::string Pipeline::preprocessing() const {
  std::string text;
  bool random = false;
  for (const StageConfig& stage : config_.stages) {
    if (stage.info->in == Kind::kNothing || is_transform(*stage.info)) {
      text += portable_params(stage, own_params) + "\n";
      random = random || stage.info->random;
    }
  }
  // What random stages make depends on the seed too.
  if (random) text += "seed {value: " + std::to_string(config_.seed) + "}\n";
  return text;
}

RunInfo make_run_info(const Pipeline& pipeline, int threads,
                      const std::filesystem::path& directory) {
  const Config& config = pipeline.config();
  RunInfo run;
  run.name = config.name;
  run.seed = config.seed;
  run.directory = directory;
  run.device = config.run.device;
  run.precision = config.run.precision;
  run.threads = threads;
  run.config_yaml = config.resolved_yaml();
  run.preprocessing = pipeline.preprocessing();
  return run;
}

}  // namespace gp
