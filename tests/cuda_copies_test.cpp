// The emulated asynchronous copies: cp.async, and copies in bulk (tests/emulator_kernels.cu).
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "cuda/async_copy.h"
#include "cuda/bulk_copy.h"
#include "emulator_kernels.h"

namespace mocograd::cuda_emulated {
namespace {

// ---- cp.async -------------------------------------------------------------------------------------

enum class CopyMistake {
  none,
  never_commits,
  no_wait,
  one_group_short,
  never_waits,
  misaligned,
  not_shared
};

__global__ void reverse_by_copy(const float* x, float* y, CopyMistake mistake) {
  __shared__ __align__(16) float tile[2][32 * 4];
  const unsigned i = threadIdx.x * 4;
  const unsigned shift = mistake == CopyMistake::misaligned ? 1 : 0;
  async_copy<16>(mistake == CopyMistake::not_shared ? y : &tile[0][i], x + i + shift);
  async_copy_commit();
  async_copy<16>(&tile[1][i], x + i, threadIdx.x % 2 == 0);
  if (mistake != CopyMistake::never_commits) async_copy_commit();
  if (mistake == CopyMistake::none) async_copy_wait<0>();
  if (mistake == CopyMistake::one_group_short) async_copy_wait<1>();
  __syncthreads();
  for (unsigned j = 0; j < 4; ++j) {
    y[i + j] = tile[0][127 - i - j];
    y[128 + i + j] = tile[1][127 - i - j];
  }
  __syncthreads();
  if (mistake != CopyMistake::never_waits) async_copy_wait<0>();
}

TEST(AsyncCopyTest, AMissingWaitForACopyShowsAsNan) {
  std::vector<float> x(128), y(256);
  std::iota(x.begin(), x.end(), 0.0f);
  const auto run = [&](CopyMistake mistake) {
    launch(reverse_by_copy, Grid{1, 32}, x.data(), y.data(), mistake);
    return y;
  };
  const auto right = run(CopyMistake::none), none = run(CopyMistake::no_wait);
  const auto short_of_one = run(CopyMistake::one_group_short);
  for (size_t i = 0; i < 128; ++i) {
    EXPECT_EQ(right[i], 127.0f - static_cast<float>(i));
    EXPECT_EQ(right[128 + i], i / 4 % 2 == 0 ? 0.0f : 127.0f - static_cast<float>(i));
    EXPECT_TRUE(std::isnan(none[i]) && std::isnan(none[128 + i]));
    EXPECT_EQ(short_of_one[i], right[i]);
    EXPECT_TRUE(std::isnan(short_of_one[128 + i]));
  }
}

TEST(AsyncCopyTest, WrongCopiesAreNamed) {
  std::vector<float> x(132), y(256);
  const auto run = [&](CopyMistake mistake) {
    launch(reverse_by_copy, Grid{1, 32}, x.data(), y.data(), mistake);
  };
  EXPECT_DEATH(run(CopyMistake::never_waits),
               "cuda_copies_test.cpp:[0-9]+: cp.async: the thread has ended and never waited "
               "for this");
  EXPECT_DEATH(run(CopyMistake::never_commits),
               "cp.async: the thread has ended and never committed this copy");
  EXPECT_DEATH(run(CopyMistake::misaligned), "cp.async of 16 bytes needs both addresses");
  EXPECT_DEATH(run(CopyMistake::not_shared), "cp.async of 16 bytes to what is not shared memory");
}

// ---- copies in bulk --------------------------------------------------------------------------------

TEST(BulkCopyTest, AheadThroughTwoBarriers) {
  constexpr size_t kRows = 7;
  std::vector<float> x(kRows * 64), y(x.size()), expected(x.size());
  std::iota(x.begin(), x.end(), 0.0f);
  for (size_t i = 0; i < x.size(); ++i) expected[i] = x[i / 64 * 64 + 63 - i % 64];
  for (uint64_t seed = 0; seed < 10; ++seed) {
    emulator::set_seed(seed);
    std::fill(y.begin(), y.end(), NAN);
    reverse_rows(x.data(), y.data(), kRows);
    EXPECT_EQ(y, expected) << "seed " << seed;
  }
  emulator::set_seed(0);
}

enum class BulkMistake {
  none,
  none_with_a_late_copy,
  late_wait,
  never_waits,
  no_barrier,
  barrier_twice,
  barrier_not_shared,
  misaligned,
  half_a_piece,
  not_shared,
  two_at_once,
  no_copy,
  wrong_number
};

// y = x, 64 numbers
__global__ void copy_in_bulk(const float* x, float* y, BulkMistake mistake) {
  __shared__ __align__(16) float tile[64];
  __shared__ BulkCopyBarrier arrival;
  const auto is = [=](BulkMistake which) { return mistake == which; };
  if (threadIdx.x == 0) {
    const int bytes = is(BulkMistake::half_a_piece) ? 248 : 256;
    if (is(BulkMistake::barrier_not_shared))
      begin_barriers(reinterpret_cast<BulkCopyBarrier*>(y), 1);
    if (!is(BulkMistake::no_barrier)) begin_barriers(&arrival, 1);
    if (is(BulkMistake::barrier_twice)) begin_barriers(&arrival, 1);
    if (!is(BulkMistake::no_copy) && !is(BulkMistake::none_with_a_late_copy))
      bulk_copy(is(BulkMistake::not_shared) ? y : tile, x + is(BulkMistake::misaligned), bytes,
                arrival);
    if (is(BulkMistake::two_at_once)) bulk_copy(tile, x, bytes, arrival);
  }
  __syncthreads();
  if (is(BulkMistake::late_wait)) y[threadIdx.x] = tile[threadIdx.x];
  __syncthreads();
  if (is(BulkMistake::none_with_a_late_copy) && threadIdx.x == 0) bulk_copy(tile, x, 256, arrival);
  if (!is(BulkMistake::never_waits)) wait_for_bulk_copy(arrival, is(BulkMistake::wrong_number));
  if (!is(BulkMistake::late_wait)) y[threadIdx.x] = tile[threadIdx.x];
}

TEST(BulkCopyTest, MistakesAreFound) {
  std::vector<float> x(68), y(64);
  std::iota(x.begin(), x.end(), 0.0f);
  const auto run = [&](BulkMistake mistake) {
    launch(copy_in_bulk, Grid{1, 64}, x.data(), y.data(), mistake);
  };
  run(BulkMistake::none);
  EXPECT_EQ(y, std::vector<float>(x.begin(), x.begin() + 64));
  for (uint64_t seed = 0; seed < 10; ++seed) {  // in some, others wait for it before it begins
    emulator::set_seed(seed);
    y.assign(64, NAN);
    run(BulkMistake::none_with_a_late_copy);
    EXPECT_EQ(y, std::vector<float>(x.begin(), x.begin() + 64)) << "seed " << seed;
  }
  emulator::set_seed(0);
  run(BulkMistake::late_wait);
  for (float value : y) EXPECT_TRUE(std::isnan(value));
  EXPECT_DEATH(run(BulkMistake::never_waits),
               "cuda_copies_test.cpp:[0-9]+: bulk_copy: the block has ended and never waited");
  EXPECT_DEATH(run(BulkMistake::no_barrier),
               "bulk_copy of 256 bytes at a barrier that has not begun");
  EXPECT_DEATH(run(BulkMistake::barrier_twice), "begin_barriers of one that has begun");
  EXPECT_DEATH(run(BulkMistake::barrier_not_shared),
               "begin_barriers of what is no 8 bytes of shared memory");
  EXPECT_DEATH(run(BulkMistake::misaligned), "bulk_copy of 256 bytes: .* multiples of 16");
  EXPECT_DEATH(run(BulkMistake::half_a_piece), "bulk_copy of 248 bytes: .* multiples of 16");
  EXPECT_DEATH(run(BulkMistake::not_shared), "bulk_copy of 256 bytes to what is not shared memory");
  EXPECT_DEATH(run(BulkMistake::two_at_once), "nobody has waited for the barrier's copy before");
  EXPECT_DEATH(run(BulkMistake::no_copy),
               "cuda_copies_test.cpp:[0-9]+: wait_for_bulk_copy: deadlock: no thread can");
  EXPECT_DEATH(run(BulkMistake::wrong_number),
               "wait_for_bulk_copy 1 at a barrier where 0 have arrived");
}

}  // namespace
}  // namespace mocograd::cuda_emulated
