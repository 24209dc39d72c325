// Every rung of the ladders against the plain sums in double, on shapes of 1, primes and around the
// tiles.
#include "cpu/ladder/ladder.h"

#include <algorithm>

#include "cuda/ladder/ladder.h"
#include "kernel_cases.h"

namespace mocograd {
namespace {

class LadderTest : public KernelTest {
 protected:
  static std::vector<Rung> gemm_rungs() {
    return device() == Device::cpu ? gemm_ladder() : gemm_ladder(device());
  }
  static std::vector<Rung> conv_rungs() {
    return device() == Device::cpu ? conv_ladder() : conv_ladder(device());
  }

  // Those of a GPU are numbers of bf16, whose products are exact in every precision.
  Tensor numbers(const Shape& shape, uint32_t name) const {
    const Tensor x = uniform(shape, name);
    return device() == Device::cpu ? x : x.to(DType::bf16).to(DType::f32);
  }

  // Runs the rung on a and b; Σ|terms| bounds its rounding as in gemm_test.cpp. The last rung of the
  // CPU is Winograd's algorithm, whose rounding is winograd_test.cpp's subject, so it gets more room.
  void check(const Rung& rung, const Tensor& a, const Tensor& b, const Tensor& like_c,
             const Values& expected, const Values& magnitude, int64_t terms) {
    const double room = rung.name == "winograd" ? 20 : 1;
    const double storage = like_c.dtype() == DType::bf16 ? 0x1p-8 : 0;
    Values bound(expected.size());
    for (size_t i = 0; i < bound.size(); ++i) {
      const double error = room * static_cast<double>(terms + 1) * eps() * magnitude[i];
      bound[i] = error + storage * (std::abs(expected[i]) + error);
    }
    set_precision(rung.precision);
    const Tensor c = run([&] {
      const Tensor c = poisoned(like_c.shape(), like_c.dtype());
      rung.run(a, b, c);
      return std::vector<Tensor>{c};
    })[0];
    expect_within(c, expected, bound, rung.name + " " + like_c.shape().to_string());
  }

  void check_gemm(int64_t M, int64_t N, int64_t K) { check_gemm(gemm_rungs(), M, N, K); }
  void check_gemm(const std::vector<Rung>& rungs, int64_t M, int64_t N, int64_t K) {
    const Tensor a = numbers({M, K}, 1), b = numbers({K, N}, 2);
    const Values va = a.to_vector(), vb = b.to_vector();
    Values expected(static_cast<size_t>(M * N)), magnitude(expected.size());
    for (int64_t i = 0; i < M * N; ++i) {
      for (int64_t k = 0; k < K; ++k) {
        const double term = va[i / N * K + k] * vb[k * N + i % N];
        expected[i] += term;
        magnitude[i] += std::abs(term);
      }
    }
    for (const Rung& rung : rungs) {
      const DType dtype = rung.precision == Precision::bf16 ? DType::bf16 : DType::f32;
      check(rung, a.to(dtype), b.to(dtype), poisoned({M, N}), expected, magnitude, K);
    }
  }

  void check_conv(int64_t N, int64_t H, int64_t W, int64_t C, int64_t OC) {
    const Tensor x = numbers({N, H, W, C}, 3), w = numbers({3, 3, C, OC}, 4);
    const Values vx = x.to_vector(), vw = w.to_vector();
    Values expected(static_cast<size_t>(N * H * W * OC)), magnitude(expected.size());
    for (int64_t i = 0; i < N * H * W * OC; ++i) {
      const int64_t pixel = i / OC, n = pixel / (H * W), h = pixel / W % H, v = pixel % W;
      for (int64_t t = 0; t < 9 * C; ++t) {
        const int64_t ih = h - 1 + t / C / 3, iw = v - 1 + t / C % 3;
        if (ih < 0 || ih >= H || iw < 0 || iw >= W) continue;
        const double term = vx[((n * H + ih) * W + iw) * C + t % C] * vw[t * OC + i % OC];
        expected[i] += term;
        magnitude[i] += std::abs(term);
      }
    }
    for (const Rung& rung : conv_rungs()) {
      const DType dtype = rung.precision == Precision::bf16 ? DType::bf16 : DType::f32;
      check(rung, x.to(dtype), w, poisoned({N, H, W, OC}, dtype), expected, magnitude, 9 * C);
    }
  }
};

TEST_P(LadderTest, Gemm) {
  for (int64_t M : {1, 2, 5, 11, 12, 13, 25})
    for (int64_t N : {1, 3, 7, 16, 17, 31, 33, 67}) check_gemm(M, N, 19);
  check_gemm(3, 5, 1);
  check_gemm(97, 130, 61);
  check_gemm(130, 136, 72);
  for (int64_t n : {63, 65, 127, 129}) check_gemm(n, n, 33);
}

TEST_P(LadderTest, Conv) {
  for (int64_t H : {1, 2, 5})
    for (int64_t W : {1, 3, 7}) check_conv(2, H, W, 3, 5);
  for (int64_t OC : {1, 15, 16, 33, 50}) check_conv(1, 4, 5, 2, OC);
  check_conv(5, 8, 9, 16, 32);  // by Winograd, where the CPU's engine chooses
}

TEST_P(LadderTest, LastRungsAreTheEngine) {
  const Tensor x = numbers({5, 8, 8, 16}, 5), w = numbers({3, 3, 16, 32}, 6);
  const Rung last = conv_rungs().back();
  const DType dtype = last.precision == Precision::bf16 ? DType::bf16 : DType::f32;
  const Tensor y = poisoned({5, 8, 8, 32}, dtype), expected = poisoned({5, 8, 8, 32}, dtype);
  last.run(x.to(dtype), w, y);
  kernels().conv2d_forward(x.to(dtype), w, {.stride = 1, .padding = 1}, expected);
  expect_exactly(y, expected.to_vector(), "the last rung");
  EXPECT_TRUE(gemm_rungs().back().engine);
}

// What the rungs are compared with computes the same, in each of their precisions.
class LadderLibraryTest : public LadderTest {};

TEST_P(LadderLibraryTest, Products) {
  const std::vector<Rung> products = cublas_products(device());
  ASSERT_EQ(products.size(), 3u);
  for (const Rung& rung : gemm_rungs())
    EXPECT_TRUE(std::any_of(products.begin(), products.end(), [&](const Rung& product) {
      return product.precision == rung.precision;
    })) << rung.name;
  check_gemm(products, 24, 16, 40);
  check_gemm(products, 13, 5, 19);
}

TEST(LadderLibrary, ThereIsNoneWithoutCublas) {
  EXPECT_TRUE(cublas_products(Device::cuda_emulated).empty());
}

INSTANTIATE_TEST_SUITE_P(Kernels, LadderTest,
                         testing::Combine(testing::ValuesIn(all_kernels()),
                                          testing::Values(DType::f32)),
                         name_of_case);
INSTANTIATE_TEST_SUITE_P(Kernels, LadderLibraryTest,
                         testing::Combine(testing::ValuesIn(cublas_kernels(Precision::fp32)),
                                          testing::Values(DType::f32)),
                         name_of_case);

}  // namespace
}  // namespace mocograd
