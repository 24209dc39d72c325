// Warps on the emulator, and what is made of them: each kernel whose name begins with wrong_ has one
// mistake.
#include <numeric>

#include "cuda/warp.h"
#include "emulator_case.h"
#include "emulator_kernels.h"

namespace mocograd::cuda_emulated {
namespace {

// ---- warps -----------------------------------------------------------------------------------------

__global__ void shuffle_all(int* results) {
  const int lane = static_cast<int>(threadIdx.x % 32), thread = static_cast<int>(threadIdx.x);
  int* mine = results + threadIdx.x * 8;
  mine[0] = __shfl_sync(kAllLanes, thread, 3);
  mine[1] = __shfl_sync(kAllLanes, thread, lane + 1, 8);
  mine[2] = __shfl_xor_sync(kAllLanes, thread, 5);
  mine[3] = __shfl_down_sync(kAllLanes, thread, 3);
  mine[4] = __shfl_up_sync(kAllLanes, thread, 3, 16);
  mine[5] = warp_sum(thread);
  mine[6] = warp_max(static_cast<int>(thread * 7 % 32));
  mine[7] = lane < 4 ? __shfl_xor_sync(0xfu, thread, 1) : __shfl_xor_sync(~0xfu, thread, 2);
}

TEST_F(EmulatorTest, ShufflesMoveValuesBetweenLanes) {
  DeviceArray<int> results(64 * 8);
  launch(shuffle_all, Grid{1, 64}, results.data());
  const std::vector<int> values = results.values();
  for (int thread = 0; thread < 64; ++thread) {
    const int lane = thread % 32, first = thread - lane;
    const std::vector<int> expected = {
        first + 3,
        first + lane / 8 * 8 + (lane + 1) % 8,
        first + (lane ^ 5),
        first + (lane + 3 < 32 ? lane + 3 : lane),
        first + (lane % 16 >= 3 ? lane - 3 : lane),
        first * 32 + 31 * 16,
        31,
        first + (lane < 4 ? lane ^ 1 : lane ^ 2),
    };
    EXPECT_EQ(std::vector<int>(values.begin() + thread * 8, values.begin() + thread * 8 + 8),
              expected)
        << "thread " << thread;
  }
}

__global__ void vote(unsigned* results) {
  const unsigned thread = threadIdx.x;
  results[thread] = __ballot_sync(kAllLanes, thread % 3 == 0);
  results[32 + thread] = static_cast<unsigned>(__any_sync(kAllLanes, thread == 31) * 2 +
                                               __all_sync(kAllLanes, thread != 31));
}

TEST_F(EmulatorTest, WarpsVote) {
  DeviceArray<unsigned> results(64);
  launch(vote, Grid{1, 32}, results.data());
  for (size_t lane = 0; lane < 32; ++lane) {
    EXPECT_EQ(results.values()[lane], 0x49249249u);
    EXPECT_EQ(results.values()[32 + lane], 2u);
  }
}

template <bool kBarrier>
__global__ void exchange_by_memory(int* results) {
  __shared__ int values[32];
  values[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (kBarrier) __syncwarp();
  results[threadIdx.x] = values[threadIdx.x ^ 1];
}

TEST_F(EmulatorTest, AMissingWarpBarrierShowsAsAWrongResult) {
  DeviceArray<int> results(32);
  std::vector<int> expected(32);
  for (int lane = 0; lane < 32; ++lane) expected[static_cast<size_t>(lane)] = lane ^ 1;
  launch(exchange_by_memory<true>, Grid{1, 32}, results.data());
  EXPECT_EQ(results.values(), expected);
  launch(exchange_by_memory<false>, Grid{1, 32}, results.data());
  EXPECT_NE(results.values(), expected);
}

// Thread 0 waits for thread 1, which ends or waits for all.
__global__ void wrong_pair(bool end) {
  if (threadIdx.x == 0) __syncwarp(3);
  if (threadIdx.x == 1 && !end) __syncthreads();
}

__global__ void wrong_warp(int mistake) {
  const unsigned lane = threadIdx.x;
  if (mistake == 0 && lane < 16) __syncwarp();
  if (mistake == 0 && lane >= 16) __syncwarp();
  if (mistake == 1) __syncwarp(1);
  if (mistake == 2) __shfl_sync(0xffffu, lane, 20);
  if (mistake == 3) __syncwarp(lane == 0 ? 3u : lane == 1 ? 6u : lane == 2 ? 5u : 1u << lane);
  if (mistake == 4 && lane < 8) __shfl_xor_sync(0xfu << lane / 4 * 4, lane, 4);
}

TEST_F(EmulatorTest, ADivergentWarpIsNamed) {
  draw_first(0);
  EXPECT_DEATH(launch(wrong_pair, Grid{1, 2}, true),
               "__syncwarp: divergent warp: thread \\(0, 0, 0\\) waits here for a thread that has");
  EXPECT_DEATH(launch(wrong_warp, Grid{1, 2}, 1), "the mask leaves out the thread itself");
  EXPECT_DEATH(launch(wrong_pair, Grid{1, 2}, false),
               "__syncthreads: divergent warp: thread \\(0, 0, 0\\) waits in __syncwarp "
               "at tests/cuda_warp_test.cpp:[0-9]+, in thread \\(1, 0, 0\\)");
  draw_first(1);
  EXPECT_DEATH(launch(wrong_pair, Grid{1, 2}, true),
               "mask 0x00000003: divergent warp: thread \\(1, 0, 0\\) has ended and will not come");
  EXPECT_DEATH(launch(wrong_pair, Grid{1, 2}, false),
               "mask 0x00000003: divergent warp: thread \\(1, 0, 0\\) waits in __syncthreads at");
  const Grid grid{1, 32};
  EXPECT_DEATH(
      launch(wrong_warp, grid, 0),
      "__syncwarp with mask 0xffffffff: divergent warp: thread \\([0-9]+, 0, 0\\) waits in "
      "__syncwarp at tests/cuda_warp_test.cpp:[0-9]+, in thread");
  EXPECT_DEATH(launch(wrong_warp, grid, 1),
               "mask 0x00000001: the mask leaves out the thread itself");
  EXPECT_DEATH(launch(wrong_warp, grid, 2), "__shfl_sync reads lane 20, which its mask leaves out");
  EXPECT_DEATH(launch(wrong_warp, grid, 3),
               "__syncwarp: deadlock: every thread of the block waits");
  EXPECT_DEATH(launch(wrong_warp, grid, 4), "__shfl_xor_sync reads lane [0-7], which its mask");
  EXPECT_DEATH(launch(wrong_warp, Grid{1, 20}, 0),
               "the mask names lanes that the block does not have");
}

// ---- sums over a block -----------------------------------------------------------------------------

// The second must not write where the first is still being read.
TEST_F(EmulatorTest, SumsOfABlockDoNotDisturbEachOther) {
  constexpr unsigned kThreads = 128;
  std::vector<float> x(kThreads);
  std::iota(x.begin(), x.end(), 1.0f);
  const float sum = kThreads * (kThreads + 1) / 2;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    emulator::set_seed(seed);
    DeviceArray<float> input(x), sums(2 * kThreads);
    sum_twice(input.data(), sums.data(), kThreads);
    const std::vector<float> found = sums.values();
    for (unsigned i = 0; i < kThreads; ++i) {
      ASSERT_EQ(found[2 * i], sum) << "seed " << seed << ", thread " << i;
      ASSERT_EQ(found[2 * i + 1], 2 * sum) << "seed " << seed << ", thread " << i;
    }
  }
}

}  // namespace
}  // namespace mocograd::cuda_emulated
