// The emulated tensor cores: mma, ldmatrix and wgmma, on whole matrix products too
// (tests/emulator_kernels.cu).
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "cuda/async_copy.h"
#include "cuda/mma.h"
#include "cuda/wgmma.h"
#include "emulator_kernels.h"
#include "tensor/random.h"

namespace mocograd::cuda_emulated {
namespace {

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
