#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "pipeline/batch.hpp"
#include "pipeline/rng.hpp"

namespace gp {

/// `count` images of size x size, uint8 NHWC: orange above and blue below a horizon, which lies at
/// a random height, with a little noise.
inline std::vector<std::uint8_t> toy_images(int size, int count, std::uint64_t first = 0) {
  std::vector<std::uint8_t> pixels;
  for (int i = 0; i < count; ++i) {
    Rng rng(1, "toy", first + static_cast<std::uint64_t>(i));
    const auto horizon = static_cast<int>(rng.below(static_cast<std::uint32_t>(size)));
    for (int y = 0; y < size; ++y) {
      for (int x = 0; x < size; ++x) {
        const int colours[2][3] = {{220, 140, 30}, {20, 60, 200}};
        for (const int colour : colours[y < horizon ? 0 : 1]) {
          pixels.push_back(static_cast<std::uint8_t>(colour + static_cast<int>(rng.below(16))));
        }
      }
    }
  }
  return pixels;
}

inline std::shared_ptr<Batch> toy_batch(int size, int count, std::uint64_t first = 0) {
  const std::vector<std::uint8_t> pixels = toy_images(size, count, first);
  std::shared_ptr<std::uint8_t[]> memory(new std::uint8_t[pixels.size()]);
  std::memcpy(memory.get(), pixels.data(), pixels.size());
  auto batch = std::make_shared<Batch>();
  batch->shape = {size, size};
  batch->count = count;
  batch->pixels = std::move(memory);
  for (int i = 0; i < count; ++i) batch->keys.push_back("toy/" + std::to_string(first + i));
  batch->labels.assign(static_cast<std::size_t>(count), -1);
  return batch;
}

/// `epochs` times `batches` batches and the empty one that ends an epoch, as the pipeline gives
/// them.
inline std::vector<std::shared_ptr<const Batch>> toy_stream(int size, int batch_size, int batches,
                                                            int epochs) {
  std::vector<std::shared_ptr<const Batch>> all;
  for (int epoch = 0; epoch < epochs; ++epoch) {
    for (int i = 0; i < batches; ++i) {
      auto batch = toy_batch(size, batch_size, static_cast<std::uint64_t>(i) * batch_size);
      batch->epoch = static_cast<std::uint32_t>(epoch);
      batch->next = static_cast<std::uint64_t>(i + 1) * batch_size;
      all.push_back(batch);
    }
    auto end = std::make_shared<Batch>();
    end->shape = {size, size};
    end->epoch = static_cast<std::uint32_t>(epoch);
    end->next = static_cast<std::uint64_t>(batches) * batch_size;
    end->end_of_epoch = true;
    all.push_back(end);
  }
  return all;
}

}  // namespace gp
