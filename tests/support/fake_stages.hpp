#pragma once

#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "pipeline/error.hpp"
#include "pipeline/graph.hpp"

namespace gp::testing {

/// `count` images of a fixed size whose pixels are a function of the item number.
class FakeSource : public SourceStage {
 public:
  explicit FakeSource(std::uint64_t count, ImageShape shape = {4, 4})
      : count_(count), shape_(shape) {}
  std::uint64_t size() const override { return count_; }
  std::string key(std::uint64_t item) const override { return "item" + std::to_string(item); }
  std::int32_t label(std::uint64_t item) const override { return static_cast<int>(item % 7); }
  ImageShape output_shape() const override { return shape_; }
  std::string digest() const override { return "fake"; }
  void read(std::uint64_t item, StageOutput& out) const override {
    if (bad_items.count(item) > 0) throw SampleError("item is bad");
    const ImageView image = out.image(shape_.height, shape_.width);
    std::memset(image.data, static_cast<int>(item % 251), shape_.bytes());
  }
  std::set<std::uint64_t> bad_items;

 private:
  std::uint64_t count_;
  ImageShape shape_;
};

/// Calls a function for each sample.
class FakeTransform : public TransformStage {
 public:
  using Function = std::function<void(const StageInput&, Rng&, StageOutput&)>;
  explicit FakeTransform(Function function) : function_(std::move(function)) {}
  void process(const StageInput& in, Rng& rng, StageOutput& out) const override {
    function_(in, rng, out);
  }

 private:
  Function function_;
};

/// Adds random noise to every pixel: shows whether randomness is keyed to the sample.
inline void add_noise(const StageInput& in, Rng& rng, StageOutput& out) {
  const ImageView image = out.image(in.image.height, in.image.width);
  for (int y = 0; y < image.height; ++y) {
    for (int x = 0; x < image.width * kChannels; ++x) {
      image.row(y)[x] = static_cast<std::uint8_t>(in.image.row(y)[x] + rng.below(256));
    }
  }
}

/// A source, transforms, and what a graph over them needs.
class FakePipeline {
 public:
  FakePipeline(std::uint64_t count, std::vector<FakeTransform::Function> transforms,
               std::vector<Concurrency> concurrency = {})
      : source(count) {
    for (std::size_t i = 0; i < transforms.size(); ++i) {
      stages_.push_back(std::make_unique<FakeTransform>(std::move(transforms[i])));
      infos_.push_back(std::make_unique<StageInfo>());
      if (i < concurrency.size()) infos_.back()->concurrency = concurrency[i];
      links_.push_back({"fake" + std::to_string(i), stages_.back().get(), infos_.back().get()});
    }
  }
  const TransformChain& chain() {
    if (!chain_) chain_ = std::make_unique<TransformChain>(source, "source.fake", links_, seed);
    return *chain_;
  }
  std::unique_ptr<GraphStream> open(const GraphOptions& options, bool shuffle = true) {
    return std::make_unique<GraphStream>(
        source, chain(), std::make_shared<SampleOrder>(source, seed, shuffle), options);
  }

  FakeSource source;
  std::uint64_t seed = 1;

 private:
  std::vector<std::unique_ptr<FakeTransform>> stages_;
  std::vector<std::unique_ptr<StageInfo>> infos_;
  std::vector<TransformChain::Link> links_;
  std::unique_ptr<TransformChain> chain_;
};

/// A stage's registration with the rest at its defaults.
inline StageInfo stage_info(std::string name, Kind in, Kind out, ParamSchema params,
                            std::function<std::unique_ptr<Stage>(const Params&)> create) {
  StageInfo info;
  info.name = std::move(name);
  info.doc = "for tests";
  info.in = in;
  info.out = out;
  info.params = std::move(params);
  info.create = std::move(create);
  return info;
}

/// Everything a stream delivers, as one comparable value.
struct Delivered {
  std::vector<std::string> keys;
  std::vector<std::uint8_t> pixels;
  std::vector<std::string> rejects;
  std::vector<EpochCounts> epochs;
  std::vector<StreamPosition> positions;
  int batches = 0;
};

inline void take(const Batch& batch, Delivered& all) {
  all.keys.insert(all.keys.end(), batch.keys.begin(), batch.keys.end());
  all.pixels.insert(all.pixels.end(), batch.pixels.get(),
                    batch.pixels.get() + batch.count * batch.shape.bytes());
  for (const Reject& reject : batch.rejects) {
    all.rejects.push_back(reject.key + "|" + reject.stage + "|" + reject.reason);
  }
  if (batch.end_of_epoch) all.epochs.push_back(batch.counts);
  if (batch.count > 0) {
    ++all.batches;
    all.positions.push_back({batch.epoch, batch.next, batch.counts});
  }
}

inline Delivered drain(BatchStream& stream) {
  Delivered all;
  while (const auto batch = stream.next()) take(*batch, all);
  return all;
}

}  // namespace gp::testing
