#include "stages/torch/autocast.hpp"

#include <gtest/gtest.h>
#include <torch/torch.h>

namespace gp {
namespace {

/// A dense layer's output for an input of ones: the sum of its weights.
float forward(const at::Tensor& weight) {
  const at::Tensor x = at::ones({1, weight.size(1)});
  const at::Tensor y = at::linear(x, weight);
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  return y.item<float>();
}

void update(const at::Tensor& weight) {
  const at::NoGradGuard no_grad;
  weight.fill_(2);
}

TEST(AutocastScope, AForwardAfterAnUpdateSeesTheNewWeights) {
  const at::Tensor weight = at::ones({1, 4}).set_requires_grad(true);
  {
    const AutocastScope scope(at::kCPU, true);
    EXPECT_EQ(forward(weight), 4);
  }
  update(weight);
  const AutocastScope scope(at::kCPU, true);
  EXPECT_EQ(forward(weight), 8);
}

// Why there is one scope a forward pass: inside one scope torch goes on using its bf16 copy. If
// this fails, torch has changed, and the test above proves nothing any more.
TEST(AutocastScope, WithinOneScopeTheOldWeightsStay) {
  const at::Tensor weight = at::ones({1, 4}).set_requires_grad(true);
  const AutocastScope scope(at::kCPU, true);
  EXPECT_EQ(forward(weight), 4);
  {
    const AutocastScope inner(at::kCPU, true);
    update(weight);
  }
  EXPECT_EQ(forward(weight), 4);
}

TEST(AutocastScope, LeavesNothingBehind) {
  at::autocast::set_autocast_dtype(at::kCPU, at::kHalf);
  {
    const AutocastScope scope(at::kCPU, true);
    EXPECT_TRUE(at::autocast::is_autocast_enabled(at::kCPU));
    EXPECT_EQ(at::autocast::get_autocast_dtype(at::kCPU), at::kBFloat16);
    const AutocastScope inner(at::kCPU, false);
    EXPECT_FALSE(at::autocast::is_autocast_enabled(at::kCPU));
  }
  EXPECT_FALSE(at::autocast::is_autocast_enabled(at::kCPU));
  EXPECT_EQ(at::autocast::get_autocast_dtype(at::kCPU), at::kHalf);
  at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
}

}  // namespace
}  // namespace gp
