#include "pipeline/replay.hpp"

#include <algorithm>

#include "pipeline/error.hpp"

namespace gp {
namespace {

Image copy_of(ConstImageView view) {
  Image image(view.height, view.width);
  copy_image(view, image.view());
  return image;
}

/// What to say of a key that the source does not have.
std::string hint_for(const std::string& key, const SourceStage& source) {
  constexpr std::size_t kShown = 3;
  std::vector<std::string> all;
  std::vector<std::string> near;  // those that hold it, as 'images/0034309.jpg' holds '0034309'
  for (std::uint64_t item = 0; item < source.size(); ++item) {
    all.push_back(source.key(item));
    if (near.size() < kShown && all.back().find(key) != std::string::npos) {
      near.push_back(all.back());
    }
  }
  if (near.empty()) {
    const std::string nearest = nearest_name(key, all);
    if (!nearest.empty()) near.push_back(nearest);
  }
  const bool guessed = !near.empty();
  if (!guessed) near.assign(all.begin(), all.begin() + std::min(all.size(), kShown));
  std::string text;
  for (const std::string& name : near) text += (text.empty() ? "'" : ", '") + name + "'";
  return guessed ? "; did you mean " + text + "?" : "; the first ones are " + text;
}

}  // namespace

ReplayedSample replay_sample(const DataPath& data, const SampleOrder::Entry& entry,
                             std::uint32_t epoch) {
  TransformChain& chain = *data.chain;
  Sample sample;
  sample.info = {data.source->key(entry.item), entry.key_hash, data.source->label(entry.item),
                 epoch};
  sample.item = entry.item;
  if (chain.output_shape().fixed()) {
    sample.slab = SlabPool(chain.output_shape().bytes()).take();
  }

  ReplayedSample replay{sample.info, chain.chosen_addresses(sample), {}, {}};
  int number = 0;
  chain.set_observer([&](const std::string& address, const StageInput& output) {
    if (!replay.stages.empty()) {
      do {
        ++number;
      } while (replay.chosen[static_cast<std::size_t>(number) - 1] != address);
    }
    ReplayedStage stage{number, address, {}, {}, output.image.shape(), output.geometry};
    stage.bytes.assign(output.bytes.begin(), output.bytes.end());
    if (!output.image.empty()) {
      stage.image = copy_of(cut_to_region(output.image, output.geometry));
    }
    replay.stages.push_back(std::move(stage));
  });
  Workspace workspace(chain);
  try {
    for (const TransformChain::Segment& segment : chain.segments()) {
      chain.run(segment, sample, workspace);
    }
  } catch (...) {
    chain.set_observer({});
    throw;
  }
  chain.set_observer({});
  replay.reject = sample.reject;
  if (!sample.reject && sample.slab) {
    const ImageShape shape = chain.output_shape();
    replay.stages.back().image = copy_of({sample.slab.get(), shape.height, shape.width,
                                          static_cast<std::ptrdiff_t>(shape.width) * kChannels});
  }
  return replay;
}

std::uint64_t find_position(const DataPath& data, const std::string& key, std::uint32_t epoch) {
  const SourceStage& source = *data.source;
  std::uint64_t item = 0;
  while (item < source.size() && source.key(item) != key) ++item;
  if (item == source.size()) {
    throw ConfigError("the key '" + key + "' is not among the " + std::to_string(source.size()) +
                      " of the source" + hint_for(key, source));
  }
  data.order->start_epoch(epoch);
  for (std::uint64_t position = 0; position < data.order->size(); ++position) {
    if (data.order->at(position).item == item) return position;
  }
  throw ConfigError("the sample '" + key +
                    "' is held out: an evaluator's `held_out: {fraction: ..}` keeps it from "
                    "training, so training never saw it");
}

}  // namespace gp
