// Every rung of the ladder against the plain sums in double, on shapes of 1, primes and around the
// tiles.
#include "cpu/ladder/ladder.h"

#include "kernel_cases.h"

namespace mocograd {
namespace {

class LadderTest : public KernelTest {
 protected:
  // Runs the rung on a and b; Σ|terms| bounds its rounding as in gemm_test.cpp. The last rung is
  // Winograd's algorithm, whose rounding is winograd_test.cpp's subject, so it gets more room.
  void check(const Rung& rung, const Tensor& a, const Tensor& b, const Shape& shape,
             const Values& expected, const Values& magnitude, int64_t terms) {
    const double room = rung.name == "winograd" ? 20 : 1;
    Values bound(expected.size());
    for (size_t i = 0; i < bound.size(); ++i)
      bound[i] = room * static_cast<double>(terms + 1) * eps() * magnitude[i];
    const Tensor c = run([&] {
      const Tensor c = poisoned(shape);
      rung.run(a, b, c);
      return std::vector<Tensor>{c};
    })[0];
    expect_within(c, expected, bound, rung.name + " " + shape.to_string());
  }

  void check_gemm(int64_t M, int64_t N, int64_t K) {
    const Tensor a = uniform({M, K}, 1), b = uniform({K, N}, 2);
    const Values va = a.to_vector(), vb = b.to_vector();
    Values expected(static_cast<size_t>(M * N)), magnitude(expected.size());
    for (int64_t i = 0; i < M * N; ++i) {
      for (int64_t k = 0; k < K; ++k) {
        const double term = va[i / N * K + k] * vb[k * N + i % N];
        expected[i] += term;
        magnitude[i] += std::abs(term);
      }
    }
    for (const Rung& rung : gemm_ladder()) check(rung, a, b, {M, N}, expected, magnitude, K);
  }

  void check_conv(int64_t N, int64_t H, int64_t W, int64_t C, int64_t OC) {
    const Tensor x = uniform({N, H, W, C}, 3), w = uniform({3, 3, C, OC}, 4);
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
    for (const Rung& rung : conv_ladder())
      check(rung, x, w, {N, H, W, OC}, expected, magnitude, 9 * C);
  }
};

TEST_P(LadderTest, Gemm) {
  for (int64_t M : {1, 2, 5, 11, 12, 13, 25})
    for (int64_t N : {1, 3, 7, 16, 17, 31, 33, 67}) check_gemm(M, N, 19);
  check_gemm(3, 5, 1);
  check_gemm(97, 130, 61);
}

TEST_P(LadderTest, Conv) {
  for (int64_t H : {1, 2, 5})
    for (int64_t W : {1, 3, 7}) check_conv(2, H, W, 3, 5);
  for (int64_t OC : {1, 15, 16, 33, 50}) check_conv(1, 4, 5, 2, OC);
  check_conv(5, 8, 9, 16, 32);  // by Winograd, where the engine chooses
}

TEST_P(LadderTest, LastRungsAreTheEngine) {
  const Tensor x = uniform({5, 8, 8, 16}, 5), w = uniform({3, 3, 16, 32}, 6);
  const Tensor y = poisoned({5, 8, 8, 32}), expected = poisoned({5, 8, 8, 32});
  conv_ladder().back().run(x, w, y);
  kernels().conv2d_forward(x, w, {.stride = 1, .padding = 1}, expected);
  expect_exactly(y, expected.to_vector(), "the last rung");
  EXPECT_TRUE(gemm_ladder().back().engine);
}

INSTANTIATE_TEST_SUITE_P(Kernels, LadderTest,
                         testing::Combine(testing::ValuesIn(cpu_kernels()),
                                          testing::Values(DType::f32)),
                         name_of_case);

}  // namespace
}  // namespace mocograd
