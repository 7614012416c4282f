#include "stages/torch/winograd_conv.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "stages/torch/target_clones.hpp"

namespace gp {
namespace {

constexpr int kOut = 4;        // pixels of a tile's side
constexpr int kIn = kOut + 2;  // and of what they depend on
constexpr int kProducts = kIn * kIn;
/// Tiles at a time, so that their transforms stay in the cache; no power of two, because the 36
/// places that are written at once would fall on the same cache lines.
constexpr int kTiles = 60;

/// The points are 0, kA, -kA, kB, -kB and infinity.
constexpr double kA = 0.70710678118654752440;  // sqrt(1/2)
constexpr double kB = 1.41421356237309504880;  // sqrt(2)
constexpr auto kA1 = static_cast<float>(kA);
constexpr auto kB1 = static_cast<float>(kB);
constexpr auto kA2 = static_cast<float>(kA * kA);
constexpr auto kB2 = static_cast<float>(kB * kB);

/// Of floats that need not be aligned. Never passed by value: how depends on the instruction set.
using Vector =
    float __attribute__((vector_size(WinogradConv::kLanes * sizeof(float)), aligned(4), may_alias));
#define GP_INLINE inline __attribute__((always_inline))  // into each clone, with its instructions

/// An image, NHWC.
struct Plane {
  std::int64_t height, width, channels;
  std::int64_t offset(std::int64_t y, std::int64_t x) const { return (y * width + x) * channels; }
};

GP_INLINE const Vector& vector_at(const float* p) { return *reinterpret_cast<const Vector*>(p); }
GP_INLINE Vector& vector_at(float* p) { return *reinterpret_cast<Vector*>(p); }

/// B^T d along one axis.
GP_INLINE void input_transform(const Vector (&d)[kIn], Vector (&result)[kIn]) {
  const Vector even_a = d[4] - kB2 * d[2];
  const Vector odd_a = kA1 * (d[3] - kB2 * d[1]);
  const Vector even_b = d[4] - kA2 * d[2];
  const Vector odd_b = kB1 * (d[3] - kA2 * d[1]);
  result[0] = kA2 * kB2 * d[0] - (kA2 + kB2) * d[2] + d[4];
  result[1] = even_a + odd_a;
  result[2] = even_a - odd_a;
  result[3] = even_b + odd_b;
  result[4] = even_b - odd_b;
  result[5] = kA2 * kB2 * d[1] - (kA2 + kB2) * d[3] + d[5];
}

/// A^T m along one axis.
GP_INLINE void output_transform(const Vector (&m)[kIn], Vector (&result)[kOut]) {
  const Vector sum_a = m[1] + m[2];
  const Vector difference_a = m[1] - m[2];
  const Vector sum_b = m[3] + m[4];
  const Vector difference_b = m[3] - m[4];
  result[0] = m[0] + sum_a + sum_b;
  result[1] = kA1 * difference_a + kB1 * difference_b;
  result[2] = kA2 * sum_a + kB2 * sum_b;
  result[3] = kA1 * kA2 * difference_a + kB1 * kB2 * difference_b + m[5];
}

/// One tile's B^T d B. Its first pixel lies at (y, x), maybe outside, where all is zero. The
/// results go to the same place in 36 matrices that are `matrix` floats apart.
GP_CLONES void transform_input(const float* image, Plane plane, std::int64_t y, std::int64_t x,
                               float* out, std::int64_t matrix) {
  const std::int64_t first_row = std::max<std::int64_t>(0, -y);
  const std::int64_t last_row = std::min<std::int64_t>(kIn, plane.height - y);
  const std::int64_t first_column = std::max<std::int64_t>(0, -x);
  const std::int64_t last_column = std::min<std::int64_t>(kIn, plane.width - x);
  for (std::int64_t c = 0; c < plane.channels; c += WinogradConv::kLanes) {
    Vector columns[kIn][kIn];
    for (int j = 0; j < kIn; ++j) {
      Vector d[kIn] = {};
      if (j >= first_column && j < last_column) {
        for (int i = 0; i < kIn; ++i) {
          if (i >= first_row && i < last_row) {
            d[i] = vector_at(image + plane.offset(y + i, x + j) + c);
          }
        }
      }
      input_transform(d, columns[j]);
    }
    for (int i = 0; i < kIn; ++i) {
      Vector row[kIn];
      for (int j = 0; j < kIn; ++j) row[j] = columns[j][i];
      Vector result[kIn];
      input_transform(row, result);
      for (int j = 0; j < kIn; ++j) vector_at(out + (i * kIn + j) * matrix + c) = result[j];
    }
  }
}

/// One tile's A^T m A from 36 such matrices, then bias and ReLU; to the pixels from (y, x) on that
/// are inside.
GP_CLONES void transform_output(const float* in, std::int64_t matrix, const float* bias,
                                float* image, Plane plane, std::int64_t y, std::int64_t x) {
  const std::int64_t rows = std::min<std::int64_t>(kOut, plane.height - y);
  const std::int64_t columns = std::min<std::int64_t>(kOut, plane.width - x);
  for (std::int64_t c = 0; c < plane.channels; c += WinogradConv::kLanes) {
    Vector half[kIn][kOut];
    for (int j = 0; j < kIn; ++j) {
      Vector m[kIn];
      for (int i = 0; i < kIn; ++i) m[i] = vector_at(in + (i * kIn + j) * matrix + c);
      output_transform(m, half[j]);
    }
    const Vector b = vector_at(bias + c);
    for (std::int64_t i = 0; i < rows; ++i) {
      Vector row[kIn];
      for (int j = 0; j < kIn; ++j) row[j] = half[j][i];
      Vector result[kOut];
      output_transform(row, result);
      float* to = image + plane.offset(y + i, x) + c;
      for (std::int64_t j = 0; j < columns; ++j) {
        const Vector value = result[j] + b;
        vector_at(to + j * plane.channels) = value > 0 ? value : Vector{};
      }
    }
  }
}

}  // namespace

bool WinogradConv::takes(at::IntArrayRef weight_shape) {
  return weight_shape.size() == 4 && weight_shape[0] % kLanes == 0 &&
         weight_shape[1] % kLanes == 0 && weight_shape[2] == 3 && weight_shape[3] == 3;
}

WinogradConv::WinogradConv(const at::Tensor& weight, const at::Tensor& bias, int padding)
    : bias_(bias.contiguous()), padding_(padding) {
  TORCH_CHECK(takes(weight.sizes()), "WinogradConv: weight ", weight.sizes());
  const double near = 2 * kA * kA * (kA * kA - kB * kB);
  const double far = 2 * kB * kB * (kB * kB - kA * kA);
  const at::Tensor g = at::tensor({1 / (kA * kA * kB * kB), 0.0, 0.0,     //
                                   1 / near, kA / near, kA * kA / near,   //
                                   1 / near, -kA / near, kA * kA / near,  //
                                   1 / far, kB / far, kB * kB / far,      //
                                   1 / far, -kB / far, kB * kB / far,     //
                                   0.0, 0.0, 1.0},
                                  at::kDouble)
                           .view({kIn, 3});
  // G w G^T for each pair of channels, in float64.
  const at::Tensor transformed = at::matmul(at::matmul(g, weight.to(at::kDouble)), g.t());
  weight_ = transformed.permute({2, 3, 1, 0})
                .to(at::kFloat)
                .reshape({kProducts, weight.size(1), weight.size(0)})
                .contiguous();
}

at::Tensor WinogradConv::operator()(const at::Tensor& input) const {
  TORCH_CHECK(input.dim() == 4 && input.size(1) == weight_.size(1), "WinogradConv: input ",
              input.sizes());
  const at::Tensor source = input.contiguous(at::MemoryFormat::ChannelsLast);
  const Plane in{source.size(2), source.size(3), source.size(1)};
  const Plane out{in.height + 2 * padding_ - 2, in.width + 2 * padding_ - 2, weight_.size(2)};
  at::Tensor result = at::empty({source.size(0), out.channels, out.height, out.width},
                                source.options().memory_format(at::MemoryFormat::ChannelsLast));
  const std::int64_t across = (out.width + kOut - 1) / kOut;
  const std::int64_t of_image = across * ((out.height + kOut - 1) / kOut);
  const std::int64_t tiles = source.size(0) * of_image;
  const at::Tensor transformed = at::empty({kProducts, kTiles, in.channels});
  at::Tensor products = at::empty({kProducts, kTiles, out.channels});
  const auto* image = source.const_data_ptr<float>();
  auto* to = result.mutable_data_ptr<float>();
  for (std::int64_t first = 0; first < tiles; first += kTiles) {
    const std::int64_t n = std::min<std::int64_t>(kTiles, tiles - first);
    const auto each = [&](const auto& transform) {
      for (std::int64_t i = 0; i < n; ++i) {
        const std::int64_t in_image = (first + i) % of_image;
        transform(i, (first + i) / of_image, in_image / across * kOut, in_image % across * kOut);
      }
    };
    each([&](std::int64_t i, std::int64_t number, std::int64_t y, std::int64_t x) {
      transform_input(image + number * in.height * in.width * in.channels, in, y - padding_,
                      x - padding_, transformed.mutable_data_ptr<float>() + i * in.channels,
                      kTiles * in.channels);
    });
    at::Tensor some = products.narrow(1, 0, n);
    at::bmm_out(some, transformed.narrow(1, 0, n), weight_);
    each([&](std::int64_t i, std::int64_t number, std::int64_t y, std::int64_t x) {
      transform_output(products.const_data_ptr<float>() + i * out.channels, kTiles * out.channels,
                       bias_.const_data_ptr<float>(),
                       to + number * out.height * out.width * out.channels, out, y, x);
    });
  }
  return result;
}

}  // namespace gp
