#include "stages/torch/learning_rate.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace gp {
namespace {

using Shape = LearningRateSchedule::Shape;

TEST(LearningRateSchedule, IsConstantWithoutMore) {
  const LearningRateSchedule schedule;
  EXPECT_EQ(schedule.factor(0), 1);
  EXPECT_EQ(schedule.factor(1'000'000), 1);
}

TEST(LearningRateSchedule, RisesThenFalls) {
  const LearningRateSchedule linear{Shape::kLinear, 4, 14};
  EXPECT_DOUBLE_EQ(linear.factor(0), 0.25);
  EXPECT_DOUBLE_EQ(linear.factor(3), 1);
  EXPECT_DOUBLE_EQ(linear.factor(4), 1);
  EXPECT_DOUBLE_EQ(linear.factor(9), 0.5);
  EXPECT_DOUBLE_EQ(linear.factor(13), 0.1);
  EXPECT_DOUBLE_EQ(linear.factor(99), 0.1);  // a training that was made longer

  const LearningRateSchedule cosine{Shape::kCosine, 0, 100};
  EXPECT_DOUBLE_EQ(cosine.factor(0), 1);
  EXPECT_DOUBLE_EQ(cosine.factor(50), 0.5);
  EXPECT_NEAR(cosine.factor(25), (1 + std::sqrt(0.5)) / 2, 1e-15);
  EXPECT_GT(cosine.factor(99), 0);
}

TEST(LearningRateSchedule, FallsFromAStepOn) {
  const LearningRateSchedule linear{Shape::kLinear, 4, 20, 10};
  EXPECT_DOUBLE_EQ(linear.factor(0), 0.25);
  EXPECT_DOUBLE_EQ(linear.factor(4), 1);
  EXPECT_DOUBLE_EQ(linear.factor(10), 1);
  EXPECT_DOUBLE_EQ(linear.factor(15), 0.5);
  EXPECT_DOUBLE_EQ(linear.factor(19), 0.1);
  EXPECT_DOUBLE_EQ((LearningRateSchedule{Shape::kLinear, 12, 20, 10}.factor(16)), 0.5);
  const LearningRateSchedule never{Shape::kCosine, 0, 5, 10};
  EXPECT_DOUBLE_EQ(never.factor(4), 1);
  EXPECT_DOUBLE_EQ(never.factor(20), 1);
}

TEST(LearningRateSchedule, MayBeAllWarmUp) {
  const LearningRateSchedule schedule{Shape::kCosine, 10, 5};
  EXPECT_DOUBLE_EQ(schedule.factor(4), 0.5);
  EXPECT_DOUBLE_EQ(schedule.factor(20), 1);
}

TEST(LearningRateSchedule, FallsAsTheInverseSquareRootWhateverTheLength) {
  LearningRateSchedule schedule{Shape::kInverseSqrt, 10, 50, 100};
  EXPECT_DOUBLE_EQ(schedule.factor(4), 0.5);  // warm-up
  EXPECT_EQ(schedule.factor(10), 1);
  EXPECT_EQ(schedule.factor(100), 1);
  EXPECT_DOUBLE_EQ(schedule.factor(400), 0.5);
  EXPECT_DOUBLE_EQ(schedule.factor(10'000), 0.1);
  schedule.warm_up = 0;
  EXPECT_EQ(schedule.factor(0), 1);

  schedule.warm_up = 400;  // both at once, without a jump where one of them ends
  EXPECT_DOUBLE_EQ(schedule.factor(99), 0.25);
  EXPECT_DOUBLE_EQ(schedule.factor(199), 0.5 * std::sqrt(100.0 / 199));
  EXPECT_DOUBLE_EQ(schedule.factor(400), 0.5);
}

TEST(LearningRateSchedule, HasAShapeForEachName) {
  EXPECT_EQ(LearningRateSchedule::shape_of("constant"), Shape::kConstant);
  EXPECT_EQ(LearningRateSchedule::shape_of("linear"), Shape::kLinear);
  EXPECT_EQ(LearningRateSchedule::shape_of("cosine"), Shape::kCosine);
  EXPECT_EQ(LearningRateSchedule::shape_of("inverse_sqrt"), Shape::kInverseSqrt);
  EXPECT_EQ(LearningRateSchedule::names().size(), 4U);
}

}  // namespace
}  // namespace gp
