#include "stages/torch/diff_augment.hpp"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <set>
#include <utility>

#include "stages/torch/random_tensor.hpp"

namespace gp {
namespace {

constexpr AugmentPolicy kAll{true, true, true};
constexpr AugmentPolicy kColour{true, false, false};
constexpr AugmentPolicy kTranslation{false, true, false};
constexpr AugmentPolicy kCutout{false, false, true};

at::Tensor images(at::IntArrayRef sizes, const std::string& purpose = "x") {
  return normal_tensor(sizes, {5, purpose, 0}).contiguous(at::MemoryFormat::ChannelsLast);
}

RandomKey key(std::uint64_t step = 0) { return {7, "augment.real", step}; }

TEST(DiffAugment, FusedEqualsPlain) {
  for (const std::int64_t width : {16, 19, 24}) {
    for (const AugmentPolicy& policy : {kAll, kColour, kTranslation, kCutout}) {
      for (const double p : {0.5, 1.0}) {
        const at::Tensor x = images({9, 3, 16, width}).requires_grad_(true);
        const at::Tensor y = augment(x, policy, p, key());
        const at::Tensor expected = augment(x, policy, p, key(), true);
        EXPECT_TRUE(at::allclose(y, expected, 1e-5, 1e-5));
        EXPECT_TRUE(y.is_contiguous(at::MemoryFormat::ChannelsLast));
        const at::Tensor towards = images(x.sizes(), "towards");
        const at::Tensor found = torch::autograd::grad({y}, {x}, {towards})[0];
        EXPECT_TRUE(
            at::allclose(found, torch::autograd::grad({expected}, {x}, {towards})[0], 1e-5, 1e-5));
      }
    }
  }
}

TEST(DiffAugment, TranslationMovesWholePixels) {
  const at::Tensor x = images({40, 3, 16, 24});
  const at::Tensor y = augment(x, kTranslation, 1, key());
  std::set<std::pair<int, int>> seen;
  for (int n = 0; n < 40; ++n) {
    int matches = 0;
    for (int down = -2; down <= 2; ++down) {
      for (int right = -3; right <= 3; ++right) {
        bool equal = true;
        const auto from = x[n].contiguous();
        const auto to = y[n].contiguous();
        const auto a = from.accessor<float, 3>();
        const auto b = to.accessor<float, 3>();
        for (int c = 0; c < 3; ++c) {
          for (int i = 0; i < 16; ++i) {
            for (int j = 0; j < 24; ++j) {
              const int r = i + down;
              const int s = j + right;
              const bool inside = r >= 0 && r < 16 && s >= 0 && s < 24;
              equal = equal && b[c][i][j] == (inside ? a[c][r][s] : 0);
            }
          }
        }
        if (equal) {
          ++matches;
          seen.insert({down, right});
        }
      }
    }
    EXPECT_EQ(matches, 1) << n;
  }
  EXPECT_GT(seen.size(), 15U);
}

TEST(DiffAugment, CutoutZeroesOneRectangle) {
  const at::Tensor x = at::ones({60, 3, 16, 16}).contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor y = augment(x, kCutout, 1, key());
  double largest = 0;
  for (int n = 0; n < 60; ++n) {
    const at::Tensor cut = y[n][0] == 0;
    const double rows = cut.any(1).sum().item<double>();
    const double columns = cut.any(0).sum().item<double>();
    EXPECT_EQ(cut.sum().item<double>(), rows * columns);
    EXPECT_GE(rows, 4);
    EXPECT_LE(rows, 8);
    EXPECT_LE(columns, 8);
    EXPECT_TRUE(at::equal(y[n][0], y[n][2]));
    largest = std::max(largest, rows * columns);
  }
  EXPECT_EQ(largest, 64);
}

TEST(DiffAugment, ColourMovesTheMeanByBrightnessOnly) {
  const at::Tensor x = images({64, 3, 8, 8});
  const at::Tensor moved = (augment(x, kColour, 1, key()) - x).mean({1, 2, 3});
  EXPECT_LE(moved.abs().max().item<double>(), 0.5001);
  EXPECT_GT(moved.std().item<double>(), 0.2);  // uniform: 0.29
  // Grey of a pixel's deviation is scaled by contrast alone, in [0.5, 1.5].
  const at::Tensor grey = x.mean({1});
  const at::Tensor out = augment(x, kColour, 1, key()).mean({1});
  const at::Tensor scale = out.flatten(1).std(1) / grey.flatten(1).std(1);
  EXPECT_GT(scale.min().item<double>(), 0.499);
  EXPECT_LT(scale.max().item<double>(), 1.501);
  EXPECT_GT(scale.std().item<double>(), 0.2);
  // What a pixel has besides its grey is scaled by contrast and saturation, in [0, 2].
  const auto colour = [](const at::Tensor& y) {
    return (y - y.mean({1}, /*keepdim=*/true)).flatten(1).std(1);
  };
  const at::Tensor saturation = colour(augment(x, kColour, 1, key())) / colour(x) / scale;
  EXPECT_GE(saturation.min().item<double>(), 0);
  EXPECT_LT(saturation.min().item<double>(), 0.2);
  EXPECT_GT(saturation.max().item<double>(), 1.8);
  EXPECT_LT(saturation.max().item<double>(), 2.001);
}

TEST(DiffAugment, GradientIsTheAdjointAndSoIsItsOwn) {
  const at::Tensor x = images({8, 3, 16, 16}).requires_grad_(true);
  const at::Tensor g = images(x.sizes(), "g").requires_grad_(true);
  const at::Tensor zero = at::zeros_like(x);
  const at::Tensor offset = augment(zero, kAll, 1, key());
  const at::Tensor y = augment(x, kAll, 1, key());
  const at::Tensor transposed = torch::autograd::grad({y}, {x}, {g}, true, true)[0];
  const double left = ((y - offset) * g).sum().item<double>();
  EXPECT_NEAR(left, (x * transposed).sum().item<double>(), 1e-2);
  // d <A^T g, v> / dg = A v.
  const at::Tensor v = images(x.sizes(), "v");
  const at::Tensor second = torch::autograd::grad({transposed}, {g}, {v})[0];
  EXPECT_TRUE(at::allclose(second, augment(v, kAll, 1, key()) - offset, 1e-4, 1e-4));
}

TEST(DiffAugment, ShareOfImagesIsP) {
  const at::Tensor x = at::ones({2000, 3, 8, 8}).contiguous(at::MemoryFormat::ChannelsLast);
  EXPECT_TRUE(augment(x, kAll, 0, key()).is_same(x));
  const at::Tensor changed = (augment(x, kCutout, 0.5, key()) != x).flatten(1).any(1);
  EXPECT_NEAR(changed.to(at::kFloat).mean().item<double>(), 0.5, 0.05);
  // A larger p keeps what a smaller one does.
  const at::Tensor less = augment(x, kCutout, 0.3, key());
  const at::Tensor touched = (less != x).flatten(1).any(1);
  EXPECT_TRUE(at::equal(less.index({touched}), augment(x, kCutout, 0.6, key()).index({touched})));
}

TEST(DiffAugment, IsAFunctionOfKeyAndPlace) {
  const at::Tensor x = images({8, 3, 16, 16});
  const at::Tensor y = augment(x, kAll, 1, key());
  EXPECT_TRUE(at::equal(y, augment(x, kAll, 1, key())));
  EXPECT_FALSE(at::equal(y, augment(x, kAll, 1, key(1))));
  EXPECT_FALSE(at::equal(y, augment(x, kAll, 1, {7, "augment.fake", 0})));
  EXPECT_TRUE(at::equal(y.narrow(0, 0, 3), augment(x.narrow(0, 0, 3), kAll, 1, key())));
  const int threads = at::get_num_threads();
  at::set_num_threads(threads == 1 ? 2 : 1);
  EXPECT_TRUE(at::equal(y, augment(x, kAll, 1, key())));
  at::set_num_threads(threads);
}

TEST(DiffAugment, Bf16IsTheRoundedFloatResult) {
  const at::Tensor x = images({8, 3, 16, 16}).to(at::kBFloat16);
  const at::Tensor y = augment(x, kAll, 1, key());
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(at::equal(y, augment(x.to(at::kFloat), kAll, 1, key()).to(at::kBFloat16)));
}

}  // namespace
}  // namespace gp
