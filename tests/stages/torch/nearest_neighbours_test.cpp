#include "stages/torch/nearest_neighbours.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "pipeline/error.hpp"
#include "tests/stages/torch/formula_features.hpp"

namespace gp {
namespace {

using testing::formula_features;

class NearestNeighboursTest : public ::testing::Test {
 protected:
  void SetUp() override { at::set_num_threads(1); }
};

TEST_F(NearestNeighboursTest, OfPointsInAPlane) {
  const at::Tensor set = at::tensor({0.0F, 0.0F, 3.0F, 4.0F, 0.0F, 0.0F}).view({3, 2});
  const at::Tensor queries = at::tensor({0.0F, 0.0F, 3.0F, 2.0F, 0.0F, -7.0F}).view({3, 2});
  const NearestNeighbours found = nearest_neighbours(queries, set);
  EXPECT_TRUE(at::equal(found.row, at::tensor({0, 1, 0}, at::kLong))) << found.row;
  EXPECT_TRUE(at::allclose(found.distance, at::tensor({0.0, 2.0, 7.0}, at::kDouble)))
      << found.distance;
}

TEST_F(NearestNeighboursTest, EqualsTheDistanceOfEveryPairAcrossBlocks) {
  const at::Tensor queries = formula_features(1, 1100, 24);
  const at::Tensor set = formula_features(2, 2300, 24);
  const NearestNeighbours found = nearest_neighbours(queries, set);
  const auto [distance, row] = at::cdist(queries, set, 2, /*compute_mode=*/2).min(1);
  EXPECT_TRUE(at::equal(found.row, row));
  EXPECT_TRUE(at::allclose(found.distance, distance, 1e-9));
  EXPECT_GT(row.max().item<std::int64_t>(), 2048);  // some in the last block
}

TEST_F(NearestNeighboursTest, FindsCopiesFarFromZero) {
  const at::Tensor set = formula_features(1, 1500, 16) + 1e5;
  const NearestNeighbours found = nearest_neighbours(set.flip(0), set);
  EXPECT_TRUE(at::equal(found.row, at::arange(1499, -1, -1, at::kLong)));
  EXPECT_EQ(found.distance.max().item<double>(), 0);
}

TEST_F(NearestNeighboursTest, RefusesWhatHasNoMeaning) {
  EXPECT_THROW(nearest_neighbours(at::ones({5, 3}), at::ones({5, 4})), DataError);
  EXPECT_THROW(nearest_neighbours(at::ones({5, 3}), at::ones({0, 3})), DataError);
  EXPECT_THROW(nearest_neighbours(at::ones({3}), at::ones({3})), DataError);
  EXPECT_EQ(nearest_neighbours(at::ones({0, 3}), at::ones({5, 3})).row.size(0), 0);
}

}  // namespace
}  // namespace gp
