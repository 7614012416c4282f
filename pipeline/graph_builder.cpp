#include "pipeline/graph_builder.hpp"

#include <algorithm>
#include <charconv>
#include <thread>

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

/// The parameters of a stage without paths and without the source's error policy.
std::string portable_params(const StageConfig& stage, const Params& params) {
  std::string text;
  for (const ParamSpec& spec : stage.info->params.specs()) {
    if (spec.type == ParamType::kPath || !params.has(spec.name)) continue;
    text += text.empty() ? "" : ", ";
    text += spec.name + ": " + to_string(params.values().at(spec.name));
  }
  return stage.use + " {" + text + "}";
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

ThreadSplit split_threads(int threads, bool end_is_sink, bool on_gpu) {
  const int total =
      threads > 0 ? threads : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  if (end_is_sink) return {total, 1};
  if (on_gpu) return {std::max(1, total - 1), 1};
  return {std::max(1, total / 8), total};
}

Pipeline::Pipeline(Config config) : config_(std::move(config)) {
  for (const StageConfig& stage : config_.stages) {
    const StageInfo& info = *stage.info;
    if (stage.use == "batch") {
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
  if (const auto* trainer = dynamic_cast<const TrainStage*>(end_.get())) {
    for (const Phase& phase : trainer->schedule()) {
      const StageOverrides overrides = for_stages(phase.overrides);
      PreparedPhase prepared{phase.images, batch_size_, make_data_path(overrides, false)};
      for (const StageConfig& stage : config_.stages) {
        const auto found = overrides.find(stage.address);
        if (stage.use != "batch" || found == overrides.end()) continue;
        const Params params =
            override_params(stage, found->second, "schedule of '" + end_address_ + "'");
        prepared.batch_size = static_cast<int>(params.integer("size"));
      }
      phases_.push_back(std::move(prepared));
    }
  }
  if (!keep_last_ && end_ && data_.order->size() < static_cast<std::uint64_t>(batch_size_)) {
    throw DataError("the source has " + std::to_string(data_.order->size()) +
                    " samples, fewer than one batch of " + std::to_string(batch_size_) +
                    ": no step could be trained. Lower stages.batch.size or give more data.");
  }
}

StageOverrides Pipeline::for_source(const std::map<std::string, std::string>& overrides) const {
  return {{config_.stages.front().address, overrides}};
}

StageOverrides Pipeline::for_stages(const std::map<std::string, std::string>& overrides) const {
  StageOverrides result;
  for (const auto& [key, value] : overrides) {
    const std::size_t dot = key.rfind('.');
    const std::string address = key.substr(0, dot);
    const bool known = dot != std::string::npos &&
                       std::any_of(config_.stages.begin(), config_.stages.end(),
                                   [&](const StageConfig& s) { return s.address == address; });
    if (!known) {
      throw ConfigError("schedule of '" + end_address_ + "': '" + key +
                        "' is no parameter of a stage; expected e.g. image.resize.size");
    }
    result[address][key.substr(dot + 1)] = value;
  }
  return result;
}

DataPath Pipeline::make_data_path(const StageOverrides& overrides, bool for_evaluation) const {
  double fraction = 0;
  const auto params_of = [&](const StageConfig& stage) {
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
  const Params source_params = params_of(source);
  path.source = make_stage<SourceStage>(source, source_params);
  std::string recipe = portable_params(source, source_params) + "\n";

  std::vector<TransformChain::Link> links;
  for (const StageConfig& stage : config_.stages) {
    if (!is_transform(*stage.info) || (for_evaluation && stage.info->random)) continue;
    const Params params = params_of(stage);
    path.transforms.push_back(make_stage<TransformStage>(stage, params));
    links.push_back({stage.address, path.transforms.back().get(), stage.info});
    recipe += portable_params(stage, params) + "\n";
  }
  SizeDemand demand;
  for (auto stage = path.transforms.rbegin(); stage != path.transforms.rend(); ++stage) {
    (*stage)->set_demand(demand);
    demand = (*stage)->demand(demand);
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
      : phases_(phases), options_(options) {
    open();
  }
  std::shared_ptr<const Batch> next() override {
    if (phase_ + 1 < phases_.size() && images_ >= phases_[phase_].images) {
      waited_ += stream_->seconds_waited();
      stream_.reset();  // drains: what was in flight is read again by the next graph
      ++phase_;
      images_ = 0;
      open();
    }
    std::shared_ptr<const Batch> batch = stream_->next();
    if (batch) {
      images_ += static_cast<std::uint64_t>(batch->count);
      if (batch->count > 0) options_.start = {batch->epoch, batch->next};
      if (batch->end_of_epoch) options_.start = {batch->epoch + 1, 0};
    }
    return batch;
  }
  double seconds_waited() const override { return waited_ + stream_->seconds_waited(); }

 private:
  void open() {
    const PreparedPhase& phase = phases_[phase_];
    options_.batch_size = phase.batch_size;
    options_.max_in_flight = std::max(options_.max_in_flight, phase.batch_size);
    stream_ = std::make_unique<GraphStream>(*phase.data.source, *phase.data.chain, phase.data.order,
                                            options_);
  }

  const std::vector<PreparedPhase>& phases_;
  GraphOptions options_;
  std::size_t phase_ = 0;
  std::uint64_t images_ = 0;
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

std::unique_ptr<BatchStream> Pipeline::open_stream(int threads, StreamPosition start) const {
  GraphOptions options = graph_options(threads, batch_size_);
  options.epochs = end_ ? end_->epochs() : 1;
  options.start = start;
  options.keep_last = keep_last_;
  if (!phases_.empty()) return std::make_unique<PhasedStream>(phases_, options);
  return std::make_unique<GraphStream>(*data_.source, *data_.chain, data_.order, options);
}

StreamInfo Pipeline::describe(const DataPath& path, int batch_size) const {
  return {path.chain->output_shape(), batch_size, path.order->size(), path.source->class_names(),
          path.digest};
}

StreamInfo Pipeline::stream_info() const { return describe(data_, batch_size_); }

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
      text += portable_params(stage, stage.params) + "\n";
      random = random || stage.info->random;
    }
  }
  // What random stages make depends on the seed too.
  if (random) text += "seed {value: " + std::to_string(config_.seed) + "}\n";
  return text;
}

namespace {

/// Edges between the nodes of the drawing: the list in order, evaluators beside each other.
std::vector<std::pair<std::size_t, std::size_t>> edges(const Config& config) {
  std::vector<std::pair<std::size_t, std::size_t>> result;
  std::size_t snapshot_from = 0;
  for (std::size_t i = 0; i < config.stages.size(); ++i) {
    if (config.stages[i].info->out == Kind::kSnapshot) snapshot_from = i;
    if (i == 0) continue;
    const bool evaluates = config.stages[i].info->in == Kind::kSnapshot;
    result.emplace_back(evaluates ? snapshot_from : i - 1, i);
  }
  return result;
}

std::string edge_label(const Config& config, std::size_t from) {
  const StageConfig& stage = config.stages[from];
  return to_string(stage.use == "batch" ? Kind::kBatch : stage.info->out);
}

}  // namespace

std::string graph_to_dot(const Config& config) {
  std::string text = "digraph \"" + config.name + "\" {\n  rankdir=LR;\n  node [shape=box];\n";
  for (std::size_t i = 0; i < config.stages.size(); ++i) {
    text += "  s" + std::to_string(i) + " [label=\"" + config.stages[i].address + "\"" +
            (config.stages[i].info->random ? ", style=dashed" : "") + "];\n";
  }
  for (const auto& [from, to] : edges(config)) {
    text += "  s" + std::to_string(from) + " -> s" + std::to_string(to) + " [label=\"" +
            edge_label(config, from) + "\"];\n";
  }
  return text + "}\n";
}

std::string graph_to_mermaid(const Config& config) {
  std::string text = "flowchart LR\n";
  for (std::size_t i = 0; i < config.stages.size(); ++i) {
    text += "  s" + std::to_string(i) + "[\"" + config.stages[i].address + "\"]\n";
  }
  for (const auto& [from, to] : edges(config)) {
    text += "  s" + std::to_string(from) + " -->|" + edge_label(config, from) + "| s" +
            std::to_string(to) + "\n";
  }
  return text;
}

}  // namespace gp
