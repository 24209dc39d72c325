// How a product is shared by blocks (cuda/tile_loader.h).
#include <gtest/gtest.h>

#include "cuda/tile_loader.h"

namespace mocograd::cuda_emulated {
namespace {

TEST(ProductShapeTest, SplitsCoverKInWholeSteps) {
  for (int64_t M : {1, 27, 576, 4608}) {
    for (int64_t N : {1, 64, 512}) {
      for (int64_t K : {0, 1, 255, 257, 1000, 8192, 131071}) {
        ProductShape shape(M, N, K, 128, 128, 64);
        shape.share_k_on(132, 2);
        EXPECT_GE(int64_t{shape.splits} * shape.k_per_split, K);
        if (shape.splits == 1) continue;
        EXPECT_LT((shape.splits - 1) * shape.k_per_split, K);
        EXPECT_EQ(shape.k_per_split % 64, 0);
        EXPECT_GE(shape.k_per_split, 192);
      }
    }
  }
}

// A grid that leaves hardly a multiprocessor idle, and no more parts than that takes.
TEST(ProductShapeTest, SplitsFillTheGpu) {
  const auto splits = [](int64_t M, int64_t N, int64_t K) {
    ProductShape shape(M, N, K, 128, 128, 64);
    shape.share_k_on(132, 2);
    return shape.splits;
  };
  EXPECT_EQ(splits(128 * 132, 128 * 2, 8192), 1);  // full
  EXPECT_EQ(splits(128 * 132, 128, 8192), 2);      // half full
  EXPECT_EQ(splits(128 * 36, 128 * 4, 8192), 3);   // 144 of 264 would leave most with one block
  EXPECT_EQ(splits(128, 128, 200), 1);             // too short to share
}

}  // namespace
}  // namespace mocograd::cuda_emulated
