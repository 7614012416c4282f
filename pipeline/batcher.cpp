#include "pipeline/batcher.hpp"

#include <cstring>

#include "pipeline/error.hpp"

namespace gp {

std::shared_ptr<std::uint8_t[]> SlabPool::take() {
  std::unique_ptr<std::uint8_t[]> slab;
  {
    const std::lock_guard lock(shared_->mutex);
    if (!shared_->free.empty()) {
      slab = std::move(shared_->free.back());
      shared_->free.pop_back();
    }
  }
  if (!slab) slab = std::make_unique_for_overwrite<std::uint8_t[]>(bytes_);
  return {slab.release(), [shared = shared_](std::uint8_t* memory) {
            const std::lock_guard lock(shared->mutex);
            shared->free.emplace_back(memory);
          }};
}

Batcher::Batcher(Options options, std::shared_ptr<SlabPool> slabs, Emit emit, Released released)
    : options_(options),
      slabs_(std::move(slabs)),
      emit_(std::move(emit)),
      released_(std::move(released)),
      counts_(options_.counts) {}

void Batcher::add(const std::shared_ptr<Sample>& sample) {
  if (ends_before(*sample)) finish_batch();
  epoch_ = sample->info.epoch;
  next_ = sample->position + 1;
  ++counts_.read;
  if (sample->reject) {
    commit_reject(*sample);
  } else {
    gathered_.push_back(sample);
    if (static_cast<int>(gathered_.size()) == options_.batch_size) finish_batch();
  }
  if (sample->ends_epoch) finish_epoch();
}

void Batcher::end_epoch(std::uint32_t epoch) {
  epoch_ = epoch;
  next_ = options_.epoch_size;
  finish_epoch();
}

bool Batcher::ends_before(const Sample& sample) const {
  if (!options_.mixed_shapes || gathered_.empty() || sample.reject) return false;
  const ImageShape shape = sample.image.shape();
  return shape != gathered_.front()->image.shape() ||
         (gathered_.size() + 1) * shape.bytes() > kLargestMixedBatch;
}

void Batcher::commit_reject(const Sample& sample) {
  const Reject& reject = *sample.reject;
  rejects_.push_back(reject);
  released_(1);
  if (reject.dropped) {
    ++counts_.dropped_by_stage;
    return;
  }
  ++counts_.rejected;
  const RejectPolicy& policy = options_.policy;
  const std::string what =
      "sample '" + reject.key + "', stage '" + reject.stage + "': " + reject.reason;
  if (policy.stop) {
    flush_rejects();
    throw DataError(what +
                    ". The source says `on_error: stop`; `on_error: skip` would leave bad "
                    "samples out and list them in rejects.jsonl.");
  }
  const auto rejected = static_cast<double>(counts_.rejected);
  constexpr double kRounding = 1e-6;  // 29 % of 100 are 29, in floating point a little less
  const bool too_many =
      (policy.max_rejects >= 0 && rejected > static_cast<double>(policy.max_rejects)) ||
      (policy.max_reject_share >= 0 &&
       rejected > policy.max_reject_share * static_cast<double>(options_.epoch_size) + kRounding);
  if (too_many) {
    flush_rejects();
    throw DataError(std::to_string(counts_.rejected) + " of " +
                    std::to_string(options_.epoch_size) + " samples were rejected in epoch " +
                    std::to_string(epoch_ + 1) +
                    ", more than the source's `max_rejects` allows. The last one: " + what +
                    ". Mend or remove the files that rejects.jsonl lists, or raise max_rejects.");
  }
}

std::shared_ptr<Batch> Batcher::new_batch() {
  auto batch = std::make_shared<Batch>();
  batch->shape = options_.shape;
  batch->epoch = epoch_;
  batch->next = next_;
  batch->rejects = std::move(rejects_);
  rejects_.clear();
  return batch;
}

void Batcher::flush_rejects() {
  const std::shared_ptr<Batch> batch = new_batch();
  batch->counts = counts_;
  emit_(batch);
}

void Batcher::finish_batch() {
  const std::shared_ptr<Batch> batch = new_batch();
  batch->count = static_cast<int>(gathered_.size());
  counts_.batched += gathered_.size();
  batch->counts = counts_;
  batch->keys.reserve(gathered_.size());
  batch->labels.reserve(gathered_.size());
  for (const std::shared_ptr<Sample>& sample : gathered_) {
    batch->keys.push_back(std::move(sample->info.key));
    batch->labels.push_back(sample->info.label);
  }
  if (options_.mixed_shapes) batch->shape = gathered_.front()->image.shape();
  batch->pixels = gather_pixels(batch->shape);
  gathered_.clear();
  emit_(batch);
}

std::shared_ptr<const std::uint8_t[]> Batcher::gather_pixels(ImageShape shape) {
  const std::size_t bytes = shape.bytes();
  const bool mixed = options_.mixed_shapes;
  bool in_place = !mixed;
  for (std::size_t i = 0; i < gathered_.size() && in_place; ++i) {
    const Sample& sample = *gathered_[i];
    in_place = sample.slab == gathered_[0]->slab && static_cast<std::size_t>(sample.slot) == i;
  }
  if (in_place) return gathered_[0]->slab;
  // Samples have their own images, or a reject earlier in the epoch shifted them against their
  // slabs.
  const std::shared_ptr<std::uint8_t[]> pixels =
      mixed ? std::make_shared_for_overwrite<std::uint8_t[]>(gathered_.size() * bytes)
            : slabs_->take();
  for (std::size_t i = 0; i < gathered_.size(); ++i) {
    const Sample& sample = *gathered_[i];
    const std::uint8_t* from =
        mixed ? sample.image.pixels().data() : sample.slab.get() + sample.slot * bytes;
    std::memcpy(pixels.get() + i * bytes, from, bytes);
  }
  return pixels;
}

void Batcher::finish_epoch() {
  if (!gathered_.empty() && options_.keep_last) finish_batch();
  counts_.dropped_last += gathered_.size();
  if (!gathered_.empty()) released_(static_cast<int>(gathered_.size()));
  gathered_.clear();
  if (!counts_.balanced()) {
    throw RunError("the books of epoch " + std::to_string(epoch_ + 1) +
                   " do not balance: " + std::to_string(counts_.read) + " samples read, but " +
                   std::to_string(counts_.batched) + " batched + " +
                   std::to_string(counts_.rejected) + " rejected + " +
                   std::to_string(counts_.dropped_by_stage) + " dropped by stages + " +
                   std::to_string(counts_.dropped_last) +
                   " left over. This is a bug in the engine: please report it.");
  }
  const std::shared_ptr<Batch> end = new_batch();
  end->end_of_epoch = true;
  end->counts = counts_;
  counts_ = {};
  next_ = 0;
  emit_(end);
}

}  // namespace gp
