// The emulator runs right kernels as a GPU would, and finds what is wrong with wrong ones: each kernel
// whose name begins with wrong_ has one mistake.
#include "cuda/launch.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <set>
#include <vector>

#include "emulator_case.h"
#include "tensor/error.h"

namespace mocograd::cuda_emulated {
namespace {

// ---- launching -------------------------------------------------------------------------------------

__global__ void count_threads(int* counts) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  counts[block * blockDim.x * blockDim.y * blockDim.z + thread] += 1;
}

TEST_F(EmulatorTest, EveryThreadRunsOnce) {
  for (const Grid& grid : {Grid{1, 1}, Grid{7, 33}, Grid{dim3(2, 3, 4), dim3(5, 2, 3)}}) {
    const size_t threads = size_t{grid.blocks.x} * grid.blocks.y * grid.blocks.z * grid.threads.x *
                           grid.threads.y * grid.threads.z;
    DeviceArray<int> counts(std::vector<int>(threads, 0));
    launch(count_threads, grid, counts.data());
    EXPECT_EQ(counts.values(), std::vector<int>(threads, 1));
  }
}

TEST_F(EmulatorTest, NoBlocksAreNothingToDo) {
  DeviceArray<int> counts(std::vector<int>{7});
  launch(count_threads, Grid{0, 1}, counts.data());
  EXPECT_EQ(counts.values()[0], 7);
}

TEST_F(EmulatorTest, ALaunchNoGpuAcceptsIsRefused) {
  DeviceArray<int> counts(1);
  EXPECT_THROW(launch(count_threads, Grid{1, 1025}, counts.data()), Error);
  EXPECT_THROW(launch(count_threads, Grid{1, dim3(1, 1, 65)}, counts.data()), Error);
  EXPECT_THROW(launch(count_threads, Grid{dim3(1, 65536), 1}, counts.data()), Error);
  EXPECT_THROW(launch(count_threads, Grid{1, 0}, counts.data()), Error);
  EXPECT_THROW(launch(count_threads, Grid{dim3(1, 0), 1}, counts.data()), Error);
  EXPECT_THROW(launch(count_threads, Grid{1, 1, (227 << 10) + 1}, counts.data()), Error);
}

std::vector<unsigned> order_of_threads(uint64_t seed) {
  emulator::set_seed(seed);
  DeviceArray<unsigned> order(3 * 40), next(std::vector<unsigned>{0});
  launch(record_order, Grid{3, 40}, order.data(), next.data());
  return order.values();
}

TEST_F(EmulatorTest, TheSeedDecidesTheOrder) {
  const std::vector<unsigned> order = order_of_threads(1);
  EXPECT_EQ(order, order_of_threads(1));
  EXPECT_NE(order, order_of_threads(2));
  EXPECT_EQ(std::set<unsigned>(order.begin(), order.end()).size(), order.size());
  std::set<unsigned> first_blocks;
  for (uint64_t seed = 0; seed < 20; ++seed) first_blocks.insert(order_of_threads(seed)[0] / 40);
  EXPECT_EQ(first_blocks.size(), 3u);
  std::set<unsigned> first_threads;  // of a block
  for (uint64_t seed = 0; seed < 20; ++seed) first_threads.insert(order_of_threads(seed)[0] % 40);
  EXPECT_GT(first_threads.size(), 6u);
}

__global__ void record_warps(unsigned* order, unsigned* next) {
  for (int i = 0; i < 3; ++i) __syncwarp();
  order[atomicAdd(next, 1)] = threadIdx.x / 32;
}

TEST_F(EmulatorTest, WithAnOddSeedOneWarpRunsAhead) {
  int ahead[2] = {};  // of ten even seeds, and of ten odd ones
  for (uint64_t seed = 0; seed < 20; ++seed) {
    emulator::set_seed(seed);
    DeviceArray<unsigned> order(4 * 32), next(std::vector<unsigned>{0});
    launch(record_warps, Grid{1, 4 * 32}, order.data(), next.data());
    const std::vector<unsigned> warps = order.values();
    const std::set<unsigned> first(warps.begin(), warps.begin() + 32);
    ahead[seed % 2] += first.size() == 1;
  }
  EXPECT_LT(ahead[0], 5);
  EXPECT_EQ(ahead[1], 10);
}

TEST_F(EmulatorTest, BlocksAreInNoOrder) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    emulator::set_seed(seed);
    DeviceArray<unsigned> order(16), next(std::vector<unsigned>{0});
    launch(record_order, Grid{16, 1}, order.data(), next.data());
    const std::vector<unsigned> blocks = order.values();
    std::set<unsigned> strides;
    for (size_t i = 1; i < blocks.size(); ++i) strides.insert((blocks[i] - blocks[i - 1]) % 16);
    EXPECT_GT(strides.size(), 3u) << "seed " << seed;
  }
}

__global__ void note_stack(uintptr_t* stacks) {
  stacks[threadIdx.x] = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
}

TEST_F(EmulatorTest, ThreadsThatMeetNoBarrierShareOneStack) {
  DeviceArray<uintptr_t> stacks(256);
  launch(note_stack, Grid{1, 256}, stacks.data());
  EXPECT_EQ(stacks.values(), std::vector<uintptr_t>(256, stacks.values()[0]));
}

int overflow(volatile int* depth) {
  volatile char frame[1000] = {};
  *depth = *depth + 1;
  return *depth < 0 ? 0 : overflow(depth) + frame[0];
}

__global__ void wrong_recursion(int* depth) {
  if (threadIdx.x == 5) overflow(depth);
}

TEST_F(EmulatorTest, AStackOverflowIsNoticed) {
  DeviceArray<int> depth(std::vector<int>{0});
  EXPECT_DEATH(launch(wrong_recursion, Grid{1, 32}, depth.data()),
               "stack overflow: more than 256 KiB, in thread \\(5, 0, 0\\) of block \\(0, 0, 0\\)|"
               "AddressSanitizer: stack-overflow|ThreadSanitizer: stack-overflow");
}

// ---- barriers of a block ---------------------------------------------------------------------------

// kBarrier: as it should be; without, threads read what others have not written yet.
template <bool kBarrier>
__global__ void block_sum_kernel(const float* x, float* sum) {
  __shared__ float parts[256];
  parts[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) parts[threadIdx.x] += parts[threadIdx.x + half];
    if (kBarrier) __syncthreads();
  }
  if (threadIdx.x == 0) *sum = parts[0];
}

TEST_F(EmulatorTest, AMissingBarrierShowsAsAWrongResult) {
  std::vector<float> values(256);
  std::iota(values.begin(), values.end(), 1.0f);
  DeviceArray<float> x(values), sum(1);
  int wrong = 0;
  for (uint64_t seed = 0; seed < 30; ++seed) {
    emulator::set_seed(seed);
    launch(block_sum_kernel<true>, Grid{1, 256}, x.data(), sum.data());
    EXPECT_EQ(sum.values()[0], 32896.0f) << "seed " << seed;
    launch(block_sum_kernel<false>, Grid{1, 256}, x.data(), sum.data());
    wrong += sum.values()[0] != 32896.0f;
  }
  EXPECT_EQ(wrong, 30);
}

__global__ void count_and_vote(int* results) {
  const int odd = threadIdx.x % 2;
  const int count = __syncthreads_count(odd), any = __syncthreads_or(threadIdx.x == 9);
  const int all = __syncthreads_and(threadIdx.x < 64), not_all = __syncthreads_and(odd);
  results[threadIdx.x] = count * 1000 + any * 100 + all * 10 + not_all;
}

TEST_F(EmulatorTest, BarriersThatVote) {
  DeviceArray<int> results(64);
  launch(count_and_vote, Grid{1, 64}, results.data());
  EXPECT_EQ(results.values(), std::vector<int>(64, 32110));
}

__global__ void wrong_two_barriers() {
  if (threadIdx.x < 16)
    __syncthreads();
  else
    __syncthreads();
}

__global__ void wrong_early_end() {
  if (threadIdx.x == 1) return;
  __syncthreads();
}

TEST_F(EmulatorTest, ADivergentBarrierIsNamed) {
  EXPECT_DEATH(
      launch(wrong_two_barriers, Grid{3, 32}),
      "error: cuda emulator: tests/cuda_emulator_test.cpp:[0-9]+: __syncthreads: divergent "
      "barrier: thread \\([0-9]+, 0, 0\\) waits in __syncthreads at "
      "tests/cuda_emulator_test.cpp:[0-9]+, "
      "in thread \\([0-9]+, 0, 0\\) of block \\([0-2], 0, 0\\)\n");
  draw_first(0);
  EXPECT_DEATH(
      launch(wrong_early_end, Grid{1, 2}),
      "__syncthreads: divergent barrier: thread \\(0, 0, 0\\) waits here for a thread that "
      "has ended, in thread \\(1, 0, 0\\) of block \\(0, 0, 0\\)\n");
  draw_first(1);
  EXPECT_DEATH(
      launch(wrong_early_end, Grid{1, 2}),
      "__syncthreads: divergent barrier: thread \\(1, 0, 0\\) has ended and will not come, "
      "in thread \\(0, 0, 0\\) of block \\(0, 0, 0\\)\n");
}

// ---- memory ----------------------------------------------------------------------------------------

__global__ void wrong_read_before_write(const float* unwritten, float* y) {
  __shared__ float fixed[32];
  float* dynamic = shared_memory<float>();
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  y[3 * i] = unwritten[threadIdx.x];
  y[3 * i + 1] = fixed[threadIdx.x];
  y[3 * i + 2] = dynamic[threadIdx.x];
  fixed[threadIdx.x] = dynamic[threadIdx.x] = 1;  // for the next block to find, were it kept
}

TEST_F(EmulatorTest, UnwrittenMemoryIsNan) {
  DeviceArray<float> unwritten(32), y(4 * 32 * 3);
  launch(wrong_read_before_write, Grid{4, 32, 32 * sizeof(float)}, unwritten.data(), y.data());
  for (float value : y.values()) EXPECT_TRUE(std::isnan(value));
}

#if defined(__SANITIZE_ADDRESS__)

__global__ void wrong_index(float* x, int mistake) {
  __shared__ float fixed[32];
  const float* fixed_pointer = fixed;  // whose length the compiler does not look up
  float* dynamic = shared_memory<float>();
  const unsigned i = threadIdx.x + 1;  // one too far in the last thread
  if (mistake == 0) x[i] = 0;
  if (mistake == 1) x[0] = fixed_pointer[i];
  if (mistake == 2) dynamic[i] = 0;
}

TEST_F(EmulatorTest, AccessesOutOfBoundsAreFound) {
  const Grid grid{1, 32, 32 * sizeof(float)};
  DeviceArray<float> x(32);
  EXPECT_DEATH(launch(wrong_index, grid, x.data(), 0),
               "a wrong access in thread .31, 0, 0. of block .0, 0, 0.\n.*heap-buffer-overflow.*"
               "#0 .*wrong_index.*TestBody");
  EXPECT_DEATH(launch(wrong_index, grid, x.data(), 1),
               "global-buffer-overflow.*#0 .*wrong_index.*TestBody|"
               "runtime error: load of address.*insufficient space");  // whichever looks first
  EXPECT_DEATH(launch(wrong_index, grid, x.data(), 2),
               "a wrong access in thread .31, 0, 0. of block .0, 0, 0.\n.*heap-buffer-overflow.*"
               "#0 .*wrong_index.*TestBody");
  float* freed = static_cast<float*>(device_allocate(33 * sizeof(float)));
  device_free(freed);
  EXPECT_DEATH(launch(wrong_index, grid, freed, 0), "heap-use-after-free");
}

#else

TEST_F(EmulatorTest, AccessesOutOfBoundsAreFound) {
  GTEST_SKIP() << "only under AddressSanitizer: tests/emulator_asan_test.sh";
}

#endif

__global__ void atomics(unsigned* x, float* sum) {
  atomicAdd(sum, 0.5f);
  atomicMax(&x[0], threadIdx.x);
  atomicMin(&x[1], threadIdx.x);
  atomicOr(&x[2], 1u << threadIdx.x);
  atomicAnd(&x[3], ~(1u << threadIdx.x));
  atomicInc(&x[4], 2);
  atomicCAS(&x[5], threadIdx.x, threadIdx.x);
  if (threadIdx.x == 0) x[6] = atomicExch(&x[7], 4);
}

TEST_F(EmulatorTest, Atomics) {
  DeviceArray<unsigned> x(std::vector<unsigned>{3, 3, 0, ~0u, 0, 77, 0, 9});
  DeviceArray<float> sum(std::vector<float>{1});
  launch(atomics, Grid{1, 32}, x.data(), sum.data());
  EXPECT_EQ(x.values(), (std::vector<unsigned>{31, 0, ~0u, 0, 2, 77, 9, 4}));
  EXPECT_EQ(sum.values()[0], 17.0f);
}

}  // namespace
}  // namespace mocograd::cuda_emulated
