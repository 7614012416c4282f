#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "pipeline/error.hpp"
#include "pipeline/files.hpp"
#include "pipeline/rng.hpp"
#include "pipeline/stage.hpp"
#include "stages/data/hdf5/manifest.hpp"
#include "tests/support/expect_contains.hpp"
#include "tests/support/temporary_folder.hpp"

namespace gp::test {

using testing::TemporaryFolder;

/// Noise that belongs to a number: images that are all different and cannot be mixed up.
inline std::vector<std::uint8_t> noise(ImageShape shape, std::uint64_t number) {
  Rng rng(7, "shard test", number);
  std::vector<std::uint8_t> pixels(shape.bytes());
  for (std::uint8_t& pixel : pixels) pixel = static_cast<std::uint8_t>(rng.next_u32() >> 13);
  return pixels;
}

inline std::string key_of(std::uint64_t number) {
  return "images/" + std::to_string(1000000 + number * number) +
         (number % 3 == 0 ? " \xC3\xA9" : "") + ".jpg";
}
inline std::int32_t label_of(std::uint64_t number) {
  return static_cast<std::int32_t>(number % 5) - 1;
}

/// One epoch of batches as the engine cuts them; every sample whose number is in `rejected` becomes
/// a reject of 'image.decode'. Ends with the empty batch that carries the totals.
inline std::vector<std::shared_ptr<const Batch>> make_batches(
    ImageShape shape, std::uint64_t samples, int batch_size,
    const std::map<std::uint64_t, std::string>& rejected = {}) {
  std::vector<std::shared_ptr<const Batch>> batches;
  EpochCounts counts;
  std::vector<Reject> rejects;
  std::vector<std::uint64_t> numbers;
  const auto flush = [&](bool last) {
    auto batch = std::make_shared<Batch>();
    batch->shape = shape;
    batch->count = static_cast<int>(numbers.size());
    const std::shared_ptr<std::uint8_t[]> pixels(
        new std::uint8_t[std::max<std::size_t>(1, numbers.size() * shape.bytes())]);
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      const std::vector<std::uint8_t> image = noise(shape, numbers[i]);
      std::copy(image.begin(), image.end(), pixels.get() + i * shape.bytes());
      batch->keys.push_back(key_of(numbers[i]));
      batch->labels.push_back(label_of(numbers[i]));
    }
    batch->pixels = pixels;
    counts.batched += numbers.size();
    batch->counts = counts;
    batch->next = counts.read;
    batch->rejects = std::move(rejects);
    batch->end_of_epoch = last;
    rejects.clear();
    numbers.clear();
    batches.push_back(std::move(batch));
  };
  for (std::uint64_t number = 0; number < samples; ++number) {
    ++counts.read;
    if (const auto found = rejected.find(number); found != rejected.end()) {
      ++counts.rejected;
      rejects.push_back({key_of(number), "image.decode", found->second, false});
    } else {
      numbers.push_back(number);
      if (numbers.size() == static_cast<std::size_t>(batch_size)) flush(false);
    }
  }
  if (!numbers.empty()) flush(false);
  flush(true);
  return batches;
}

/// Every file of a folder with its content, without those of folders in it.
inline std::map<std::string, std::string> contents(const std::filesystem::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.is_directory()) continue;
    files[entry.path().filename().string()] = read_text(entry.path());
  }
  return files;
}

/// The names of the files only, for readable failures.
inline std::vector<std::string> names(const std::filesystem::path& folder) {
  std::vector<std::string> result;
  for (const auto& [name, text] : contents(folder)) result.push_back(name);
  return result;
}

/// Overwrites a file, without the fsync of write_file: tests do it thousands of times.
inline void overwrite(const std::filesystem::path& file, const std::string& text) {
  std::ofstream out(file, std::ios::binary | std::ios::trunc);
  out << text;
  if (!out.flush()) throw std::runtime_error("cannot write " + file.string());
}

/// The text of the error of type E that `action` throws; fails the test when it throws none.
template <class E, class Action>
std::string error_of(Action action) {
  try {
    action();
  } catch (const E& error) {
    return error.what();
  } catch (const std::exception& error) {
    ADD_FAILURE() << "threw another type of error: " << error.what();
    return "";
  }
  ADD_FAILURE() << "threw nothing";
  return "";
}

}  // namespace gp::test
