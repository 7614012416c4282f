#include "stages/torch/nearest_picture.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "stages/common/png.hpp"
#include "stages/torch/nearest_neighbours.hpp"

namespace gp {

NearestPicture::NearestPicture(std::vector<std::uint8_t> fakes, ImageShape shape,
                               at::Tensor features)
    : shape_(shape),
      fakes_(std::move(fakes)),
      neighbours_(fakes_.size(), 255),
      features_(std::move(features)) {}

void NearestPicture::find(const FeatureSet& train) {
  const at::Tensor rows = nearest_neighbours(features_, train.vectors).row;
  const std::vector<std::int64_t> places = FeatureCollector::kept_places(train.statistics.count);
  for (int fake = 0; fake < fakes(); ++fake) {
    wanted_.emplace(places.at(static_cast<std::size_t>(rows[fake].item<std::int64_t>())), fake);
  }
  found_ = true;
}

void NearestPicture::see(const Batch& batch) {
  const std::size_t bytes = shape_.bytes();
  const std::int64_t first = std::exchange(place_, place_ + batch.count);
  while (!wanted_.empty() && wanted_.begin()->first < place_) {
    const auto [place, fake] = *wanted_.begin();
    std::copy_n(batch.pixels.get() + static_cast<std::size_t>(place - first) * bytes, bytes,
                neighbours_.begin() + fake * static_cast<std::ptrdiff_t>(bytes));
    wanted_.erase(wanted_.begin());
  }
}

Image NearestPicture::draw() const {
  const std::size_t row_bytes = kColumns * shape_.bytes();
  std::vector<std::uint8_t> pixels;
  for (std::size_t row = 0; row < fakes_.size(); row += row_bytes) {
    for (const std::vector<std::uint8_t>* images : {&fakes_, &neighbours_}) {
      const std::size_t end = std::min(row + row_bytes, images->size());
      pixels.insert(pixels.end(), images->begin() + static_cast<std::ptrdiff_t>(row),
                    images->begin() + static_cast<std::ptrdiff_t>(end));
      pixels.resize(pixels.size() + row_bytes - (end - row), 255);
    }
  }
  const auto count = static_cast<int>(pixels.size() / shape_.bytes());
  return make_grid(pixels.data(), shape_, count, kColumns);
}

}  // namespace gp
