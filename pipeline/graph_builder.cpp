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
  if (!keep_last_ && end_ && data_.order->size() < static_cast<std::uint64_t>(batch_size_)) {
    throw DataError("the source has " + std::to_string(data_.order->size()) +
                    " samples, fewer than one batch of " + std::to_string(batch_size_) +
                    ": no step could be trained. Lower stages.batch.size or give more data.");
  }
}

DataPath Pipeline::make_data_path(const std::map<std::string, std::string>& overrides,
                                  bool for_evaluation) const {
  DataPath path;
  const StageConfig& source = config_.stages.front();
  std::map<std::string, std::string> source_overrides = overrides;
  double fraction = 0;
  if (const auto found = overrides.find(kFraction); found != overrides.end()) {
    fraction = parse_fraction(found->second, "held_out");
    source_overrides.erase(kFraction);
  }
  const Params params =
      source_overrides.empty()
          ? source.params
          : override_params(source, source_overrides, "evaluation of " + source.mark.text());
  path.source = make_stage<SourceStage>(source, params);
  std::string recipe = portable_params(source, params) + "\n";

  std::vector<TransformChain::Link> links;
  for (const StageConfig& stage : config_.stages) {
    if (!is_transform(*stage.info) || (for_evaluation && stage.info->random)) continue;
    path.transforms.push_back(make_stage<TransformStage>(stage, stage.params));
    links.push_back({stage.address, path.transforms.back().get(), stage.info});
    recipe += portable_params(stage, stage.params) + "\n";
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
  const bool shuffle = !for_evaluation && std::any_of(config_.stages.begin(), config_.stages.end(),
                                                      [](const StageConfig& stage) {
                                                        return stage.info->out == Kind::kSnapshot;
                                                      });
  path.order = std::make_shared<SampleOrder>(*path.source, config_.seed, shuffle, keep);
  path.digest = sha256_hex(path.source->digest() + "\n" + recipe);
  return path;
}

std::unique_ptr<GraphStream> Pipeline::open_stream(int threads, StreamPosition start,
                                                   std::uint32_t epochs) const {
  GraphOptions options;
  options.threads = threads;
  options.max_in_flight = std::max(config_.run.max_in_flight, batch_size_);
  options.epochs = epochs > 0 ? epochs : (end_ ? end_->epochs() : 1);
  options.start = start;
  options.batch_size = batch_size_;
  options.keep_last = keep_last_;
  options.policy = config_.rejects;
  return std::make_unique<GraphStream>(*data_.source, *data_.chain, data_.order, options);
}

StreamInfo Pipeline::describe(const DataPath& path, int batch_size) const {
  return {path.chain->output_shape(), batch_size, path.order->size(), path.source->class_names(),
          path.digest};
}

StreamInfo Pipeline::stream_info() const { return describe(data_, batch_size_); }

StreamInfo Pipeline::info(const std::map<std::string, std::string>& overrides) {
  return describe(make_data_path(overrides, true), 0);
}

std::unique_ptr<BatchStream> Pipeline::open(const std::map<std::string, std::string>& overrides,
                                            int batch_size) {
  GraphOptions options;
  options.threads = evaluation_threads_;
  options.max_in_flight = std::max(config_.run.max_in_flight, 2 * batch_size);
  options.batch_size = batch_size;
  options.keep_last = true;
  options.policy = config_.rejects;
  return std::make_unique<OwningStream>(make_data_path(overrides, true), options);
}

std::string Pipeline::preprocessing() const {
  std::string text;
  for (const StageConfig& stage : config_.stages) {
    if (stage.info->in == Kind::kNothing || is_transform(*stage.info)) {
      text += portable_params(stage, stage.params) + "\n";
    }
  }
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
