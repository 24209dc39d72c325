// The emulated instructions: asynchronous copies, and tensor cores on whole matrix products
// (tests/emulator_kernels.cu).
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "cuda/async_copy.h"
#include "cuda/bulk_copy.h"
#include "cuda/mma.h"
#include "cuda/wgmma.h"
#include "emulator_kernels.h"
#include "tensor/random.h"

namespace mocograd::cuda_emulated {
namespace {

// ---- asynchronous copies ---------------------------------------------------------------------------

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
               "cuda_instructions_test.cpp:[0-9]+: cp.async: the thread has ended and never waited "
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
  EXPECT_DEATH(
      run(BulkMistake::never_waits),
      "cuda_instructions_test.cpp:[0-9]+: bulk_copy: the block has ended and never waited");
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
               "cuda_instructions_test.cpp:[0-9]+: wait_for_bulk_copy: deadlock: no thread can");
  EXPECT_DEATH(run(BulkMistake::wrong_number),
               "wait_for_bulk_copy 1 at a barrier where 0 have arrived");
}

// ---- matrix products ------------------------------------------------------------------------------

float value_of(uint16_t bf16) {
  return std::bit_cast<float>(static_cast<uint32_t>(bf16) << 16);
}

std::vector<uint16_t> random_bf16(int count, uint32_t sample) {
  RandomStream random(0, Purpose::test, 0, sample);
  std::vector<uint16_t> values(static_cast<size_t>(count));
  for (uint16_t& value : values)
    value = static_cast<uint16_t>(pack_bf16(static_cast<float>(random.uniform(-1, 1)), 0));
  return values;
}

// c = a · b in fp32, k ascending, as the emulator does it: equal to the last bit.
template <class A, class B>
std::vector<float> plain_product(int M, int N, int K, const A& a, const B& b) {
  std::vector<float> c(static_cast<size_t>(M * N));
  for (int m = 0; m < M; ++m) {
    for (int n = 0; n < N; ++n) {
      float sum = 0;
      for (int k = 0; k < K; ++k) sum += a(m, k) * b(k, n);
      c[static_cast<size_t>(m * N + n)] = sum;
    }
  }
  return c;
}

TEST(MmaTest, GemmWithCopiesAheadAndLdmatrix) {
  for (const auto& [M, N, K] :
       {std::array{64, 64, 32}, {1, 8, 8}, {128, 64, 96}, {65, 72, 40}, {63, 136, 200}}) {
    const std::vector<uint16_t> a = random_bf16(M * K, 1), b = random_bf16(K * N, 2);
    std::vector<float> c(static_cast<size_t>(M * N), NAN);
    mma_gemm(a.data(), b.data(), c.data(), M, N, K);
    EXPECT_EQ(c, plain_product(
                     M, N, K, [&, K = K](int m, int k) { return value_of(a[m * K + k]); },
                     [&, N = N](int k, int n) { return value_of(b[k * N + n]); }))
        << M << " " << N << " " << K;
  }
}

TEST(MmaTest, Tf32) {
  RandomStream random(0, Purpose::test);
  std::vector<float> a(16 * 8), b(8 * 8), c(16 * 8, NAN);
  for (float& value : a) value = static_cast<float>(random.uniform(-1, 1));
  for (float& value : b) value = static_cast<float>(random.uniform(-1, 1));
  tf32_product(a.data(), b.data(), c.data());
  const auto rounded = [](float x) { return std::bit_cast<float>(to_tf32(x)); };
  EXPECT_EQ(c, plain_product(
                   16, 8, 8, [&](int m, int k) { return rounded(a[m * 8 + k]); },
                   [&](int k, int n) { return rounded(b[k * 8 + n]); }));
}

__global__ void product_of_ones(float* d, uint32_t bits) {
  const uint32_t a[4] = {bits, bits, bits, bits}, b[2] = {bits, bits};
  float sums[4] = {};
  mma_m16n8k8_tf32(sums, a, b);
  d[threadIdx.x] = sums[0];
}

TEST(MmaTest, Tf32IgnoresTheLowestBits) {
  std::vector<float> d(32);
  launch(product_of_ones, Grid{1, 32}, d.data(), std::bit_cast<uint32_t>(1.0f) | 0x1fffu);
  EXPECT_EQ(d, std::vector<float>(32, 8.0f));
}

TEST(MmaTest, Rounding) {
  const float ulp = std::ldexp(1.0f, -7);  // of bf16 above 1
  EXPECT_EQ(pack_bf16(1.0f, -2.0f), 0xc0003f80u);
  EXPECT_EQ(value_of(static_cast<uint16_t>(pack_bf16(1 + ulp / 2, 0))), 1.0f);
  EXPECT_EQ(value_of(static_cast<uint16_t>(pack_bf16(1 + ulp * 1.5f, 0))), 1 + 2 * ulp);
  EXPECT_EQ(value_of(static_cast<uint16_t>(pack_bf16(std::numeric_limits<float>::max(), 0))),
            INFINITY);
  EXPECT_TRUE(std::isnan(value_of(static_cast<uint16_t>(pack_bf16(NAN, 0)))));
  const float tf32_ulp = std::ldexp(1.0f, -10);
  EXPECT_EQ(std::bit_cast<float>(to_tf32(-1 - tf32_ulp / 2)), -1 - tf32_ulp);
  EXPECT_EQ(std::bit_cast<float>(to_tf32(1 + tf32_ulp * 0.49f)), 1.0f);
  EXPECT_TRUE(std::isnan(std::bit_cast<float>(to_tf32(NAN))));
}

TEST(WgmmaTest, EverySwizzle) {
  for (int row_bytes : {0, 32, 64, 128}) {
    for (int n : {64, 128, 256}) {
      const int K = row_bytes == 0 ? 16 : row_bytes / 2;
      const std::vector<uint16_t> a = random_bf16(64 * K, 1), b = random_bf16(n * K, 2);
      std::vector<float> c(static_cast<size_t>(64 * n), NAN);
      wgmma_product(a.data(), b.data(), c.data(), n, row_bytes);
      EXPECT_EQ(c, plain_product(
                       64, n, K, [&](int m, int k) { return value_of(a[m * K + k]); },
                       [&](int k, int column) { return value_of(b[column * K + k]); }))
          << row_bytes << " bytes a row, n = " << n;
    }
  }
}

// Each number where PTX says it is, and a GPU looks for it.
TEST(WgmmaTest, AlongAndAcrossK) {
  const std::vector<uint16_t> a = random_bf16(kWgmmaImageRows * 64, 1);
  const std::vector<uint16_t> b = random_bf16(kWgmmaImageRows * 64, 2);
  const auto at = [](const std::vector<uint16_t>& image, const WgmmaPlace& place, int row, int k) {
    const int line = place.along_k ? row : k;
    const int panel = place.along_k ? 0 : row / 64 * place.panel;
    const int column = place.along_k ? k : row % 64;
    return value_of(image[static_cast<size_t>(
        (place.first + line / 8 * place.stride + line % 8 + panel) * 64 + column)]);
  };
  const WgmmaPlace dense_along{true, 0, 8, 0}, dense_across{false, 0, 8, 64};
  for (int n : {64, 128}) {
    for (const auto& [a_place, b_place] : {std::pair{dense_along, dense_across},
                                           {dense_across, dense_along},
                                           {dense_across, dense_across},
                                           {{false, 3, 8, 64}, {false, 5, 10, 64}},
                                           {{true, 11, 18, 0}, {false, 1, 18, 1}},
                                           {{false, 7, 9, 0}, {false, 2, 34, 2}}}) {
      std::vector<float> c(static_cast<size_t>(64 * n), NAN);
      wgmma_product_of_images(a.data(), a_place, b.data(), b_place, c.data(), n);
      EXPECT_EQ(c, plain_product(
                       64, n, 16, [&, place = a_place](int m, int k) { return at(a, place, m, k); },
                       [&, place = b_place](int k, int m) { return at(b, place, m, k); }))
          << "n = " << n << ", a from row " << a_place.first << ", b from row " << b_place.first;
    }
  }
}

// Each warpgroup reverses its 128 numbers as often as its number says, and once more.
__global__ void reverse_in_warpgroups(int* y) {
  __shared__ int numbers[256];
  const unsigned other = threadIdx.x / 128 * 128 + 127 - threadIdx.x % 128;
  numbers[threadIdx.x] = static_cast<int>(threadIdx.x);
  for (unsigned times = 0; times <= threadIdx.x / 128; ++times) {
    warpgroup_barrier();
    const int number = numbers[other];
    warpgroup_barrier();
    numbers[threadIdx.x] = number;
  }
  y[threadIdx.x] = numbers[threadIdx.x];
}

TEST(WgmmaTest, AWarpgroupsBarrierIsItsOwn) {
  std::vector<int> y(256), expected(256);
  for (int i = 0; i < 256; ++i) expected[static_cast<size_t>(i)] = i < 128 ? 127 - i : i;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    emulator::set_seed(seed);
    launch(reverse_in_warpgroups, Grid{1, 256}, y.data());
    EXPECT_EQ(y, expected) << "seed " << seed;
  }
  emulator::set_seed(0);
}

enum class Place { ended, block_barrier, shuffle };

__global__ void wrong_warpgroup_barrier(Place place) {
  if (threadIdx.x == 40 && place == Place::ended) return;
  if (threadIdx.x / 32 == 1 && place == Place::block_barrier)
    __syncthreads();
  else if (threadIdx.x == 40 && place == Place::shuffle)
    __shfl_xor_sync(~0u, 1, 1);
  else
    warpgroup_barrier();
}

TEST(WgmmaTest, ADivergentWarpgroupIsNamed) {
  const auto run = [](Place place, unsigned threads = 128) {
    launch(wrong_warpgroup_barrier, Grid{1, threads}, place);
  };
  EXPECT_DEATH(run(Place::ended),
               "warpgroup_barrier: divergent barrier: thread .* (waits here for "
               "a thread that has ended|has ended and will not come)");
  EXPECT_DEATH(run(Place::block_barrier),
               "divergent barrier: thread .* waits in (warpgroup_barrier|__syncthreads) at");
  EXPECT_DEATH(run(Place::shuffle),
               "divergent warp: thread .* waits in (warpgroup_barrier|__shfl_xor_sync) at");
  EXPECT_DEATH(run(Place::ended, 160), "the block's last threads are no whole warpgroup");
}

enum class Mistake {
  none,
  none_with_another_barrier,
  none_with_a_later_copy,
  early_read,
  no_fence,
  no_fence_of_copies,
  never_waits,
  never_commits,
  no_second_fence,
  beyond,
  unswizzled,
  not_shared,
  misaligned
};

__global__ void wrong_instruction(float* y, Mistake mistake) {
  __shared__ __align__(16) unsigned char rows[32 * 16 + 16];
  unsigned char* operands = shared_memory<unsigned char>();
  async_copy<16>(operands + threadIdx.x * 16, y, false);
  async_copy_commit();
  async_copy_wait<0>();
  if (mistake == Mistake::none_with_another_barrier) __syncthreads();
  if (mistake != Mistake::no_fence_of_copies) fence_before_wgmma();
  __syncthreads();
  if (mistake == Mistake::none_with_a_later_copy) {  // which nobody multiplies
    async_copy<16>(rows + threadIdx.x % 32 * 16, y, false);
    async_copy_commit();
    async_copy_wait<0>();
  }
  float d[32];
  for (float& value : d) value = 1;
  if (mistake != Mistake::no_fence) wgmma_fence();
  const uint64_t operand =
      wgmma_operand(operands + (mistake == Mistake::beyond ? 16 : 0), Swizzle::bytes32, 256);
  if (mistake == Mistake::unswizzled)
    wgmma_m64n64k16_bf16<true, false>(d, operand, operand);
  else
    wgmma_m64n64k16_bf16<true, true>(d, operand, operand);
  if (mistake != Mistake::never_commits) wgmma_commit();
  if (mistake == Mistake::early_read) y[threadIdx.x] = d[0];
  if (mistake != Mistake::never_waits) wgmma_wait<0>();
  if (mistake == Mistake::no_second_fence) wgmma_m64n64k16_bf16<true, true>(d, operand, operand);
  if (mistake != Mistake::early_read) y[threadIdx.x] = d[0];
  uint32_t fragments[4];
  const void* row = rows + threadIdx.x % 32 * 16 + (mistake == Mistake::misaligned ? 2 : 0);
  ldmatrix_x4(fragments, mistake == Mistake::not_shared ? y : row);
}

TEST(WgmmaTest, MistakesAreFound) {
  std::vector<float> y(128);
  const auto run = [&](Mistake mistake) {
    launch(wrong_instruction, Grid{1, 128, 64 * 16 * 2}, y.data(), mistake);
  };
  for (const Mistake none :
       {Mistake::none, Mistake::none_with_another_barrier, Mistake::none_with_a_later_copy}) {
    run(none);
    EXPECT_EQ(y, std::vector<float>(128, 1.0f));
  }
  run(Mistake::early_read);
  for (float value : y) EXPECT_TRUE(std::isnan(value));
  for (const Mistake no_fence : {Mistake::no_fence, Mistake::no_second_fence})
    EXPECT_DEATH(run(no_fence), "wgmma without a wgmma_fence since the last wait");
  EXPECT_DEATH(run(Mistake::no_fence_of_copies), "wgmma of what was copied without a fence_before");
  EXPECT_DEATH(run(Mistake::never_waits), "wgmma: the thread has ended and never waited for this");
  EXPECT_DEATH(run(Mistake::never_commits), "wgmma: the thread has ended and never committed this");
  EXPECT_DEATH(run(Mistake::beyond), "wgmma: an operand reaches beyond dynamic shared memory");
  EXPECT_DEATH(run(Mistake::unswizzled), "wgmma across k without the swizzle of 128 bytes");
  EXPECT_DEATH(run(Mistake::not_shared), "ldmatrix of a row that is not in shared memory");
  EXPECT_DEATH(run(Mistake::misaligned), "ldmatrix of a row whose address is no multiple of 16");
}

}  // namespace
}  // namespace mocograd::cuda_emulated
