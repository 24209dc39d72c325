// gemm against plain loops in double, on shapes of 1, primes and around the tiles' sizes.
#include "kernel_cases.h"

namespace mocograd {
namespace {

class GemmTest : public KernelTest {
 protected:
  // c = op(a) · op(b) for one shape and all four transpositions.
  void check(int64_t M, int64_t N, int64_t K) {
    for (const auto& [transpose_a, transpose_b] :
         {std::pair{false, false}, {false, true}, {true, false}, {true, true}}) {
      const Tensor a = uniform(transpose_a ? Shape{K, M} : Shape{M, K}, 1);
      const Tensor b = uniform(transpose_b ? Shape{N, K} : Shape{K, N}, 2);
      const Tensor c = run([&, ta = transpose_a, tb = transpose_b] {
        const Tensor c = poisoned({M, N});
        kernels().gemm(a, ta, b, tb, c);
        return std::vector<Tensor>{c};
      })[0];
      const Values va = a.to_vector(), vb = b.to_vector();
      Values expected(static_cast<size_t>(M * N)), bound(expected.size());
      for (int64_t m = 0; m < M; ++m) {
        for (int64_t n = 0; n < N; ++n) {
          double sum = 0, magnitude = 0;
          for (int64_t k = 0; k < K; ++k) {
            const double term =
                va[transpose_a ? k * M + m : m * K + k] * vb[transpose_b ? n * K + k : k * N + n];
            sum += term;
            magnitude += std::abs(term);
          }
          expected[m * N + n] = sum;
          // One rounding a multiply-add (two without fma), each relative to the partial sum.
          bound[m * N + n] = (static_cast<double>(K + 1) * eps() + product_error()) * magnitude;
        }
      }
      expect_within(c, expected, bound,
                    "c, M N K " + Shape{M, N, K}.to_string() + (transpose_a ? " aT" : "") +
                        (transpose_b ? " bT" : ""));
    }
  }
};

TEST_P(GemmTest, SmallShapesAndPrimes) {
  for (int64_t M : {1, 2, 3, 5, 7})
    for (int64_t N : {1, 2, 5, 13})
      for (int64_t K : {1, 2, 3, 11}) check(M, N, K);
}

TEST_P(GemmTest, RowsAroundTheTiles) {
  for (int64_t M : {3, 4, 6, 8, 11, 12, 13, 23, 24, 25, 47, 48, 49, 95, 96, 97, 127, 128, 129})
    check(M, 17, 5);
}

TEST_P(GemmTest, ColumnsAroundTheTiles) {
  for (int64_t N : {3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 129})
    check(5, N, 6);
}

TEST_P(GemmTest, LargerThanOneTask) {
  check(101, 263, 37);
  check(7, 521, 3);
  check(2, 2, 4099);
}

TEST_P(GemmTest, NothingToAddIsZero) {
  check(3, 2, 0);
  check(0, 2, 3);
  check(2, 0, 3);
}

// tf32 has 10 bits after the point: it tells that the tensor cores are what was tested.
TEST_P(GemmTest, FactorsAreRoundedWhereThePrecisionSaysSo) {
  if (device() == Device::cuda && cublas_of(device()))
    GTEST_SKIP() << "cuBLAS may be more exact than it was asked to be";
  const Tensor a = Tensor::full({1, 1}, 1 + 0x1p-12, options()), c = poisoned({1, 1});
  kernels().gemm(a, false, Tensor::full({1, 1}, 1, options()), false, c);
  EXPECT_EQ(c.item(), product_error() > 0 ? 1 : 1 + 0x1p-12);
}

MOCO_INSTANTIATE_KERNEL_TEST(GemmTest);
MOCO_INSTANTIATE_TENSOR_CORE_TEST(GemmTest);
MOCO_INSTANTIATE_CUBLAS_TEST(GemmTest);

}  // namespace
}  // namespace mocograd
