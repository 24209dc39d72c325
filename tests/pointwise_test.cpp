// The pointwise, row and column kernels against plain loops in double.
#include "kernel_cases.h"

namespace mocograd {
namespace {

class PointwiseTest : public KernelTest {};

const int64_t kSizes[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 127, 16383, 16384, 16385, 50021};

// rows × columns: of one, primes, around vectors, more than one chunk of rows, wider than a chunk
const std::vector<std::pair<int64_t, int64_t>> kMatrices = {
    {1, 1},   {1, 17},    {3, 1},     {5, 3},    {7, 15},    {13, 16},   {16, 17},
    {64, 31}, {65, 33},   {129, 64},  {67, 127}, {300, 128}, {4099, 10}, {1027, 65},
    {3, 997}, {2, 16411}, {70000, 1}, {0, 3},    {3, 0}};

// Compares y with f(a, b), within bound_eps · magnitude(a, b).
void expect_pointwise(const Tensor& result, const Tensor& a, const Tensor& b, double bound_eps,
                      const std::function<double(double, double)>& f,
                      const std::function<double(double, double)>& magnitude) {
  const Values va = a.to_vector(), vb = b.to_vector();
  Values expected(va.size()), bound(va.size());
  for (size_t i = 0; i < va.size(); ++i) {
    expected[i] = f(va[i], vb[i]);
    bound[i] = bound_eps * magnitude(va[i], vb[i]);
  }
  expect_within(result, expected, bound, "n = " + std::to_string(va.size()) + ": y");
}

TEST_P(PointwiseTest, ArithmeticOfTwoTensors) {
  for (int64_t n : kSizes) {
    const Tensor a = uniform({n}, 1), b = uniform({n}, 2);
    const std::vector<Tensor> results = run([&] {
      const Tensor sum = poisoned({n}), product = poisoned({n}), scaled = poisoned({n}),
                   in_place = a.clone();
      kernels().add(a, b, sum);
      kernels().add(in_place, b, in_place);
      kernels().multiply(a, b, product);
      kernels().scale(a, -2.5, scaled);
      const Tensor from_displaced = poisoned({n}), displaced_sum = displaced(poisoned({n}));
      kernels().add(a, displaced(b), from_displaced);
      kernels().add(a, b, displaced_sum);
      return std::vector<Tensor>{sum, product, scaled, in_place, from_displaced, displaced_sum};
    });
    const auto sum = [](double x, double y) { return x + y; };
    const auto size = [](double x, double y) { return std::abs(x) + std::abs(y); };
    expect_pointwise(results[0], a, b, eps(), sum, size);
    for (size_t i : {3, 4, 5}) expect_pointwise(results[i], a, b, eps(), sum, size);
    expect_pointwise(
        results[1], a, b, eps(), [](double x, double y) { return x * y; },
        [](double x, double y) { return std::abs(x * y); });
    expect_pointwise(
        results[2], a, a, eps(), [](double x, double) { return -2.5 * x; },
        [](double x, double) { return std::abs(2.5 * x); });
  }
}

TEST_P(PointwiseTest, ReluAndItsGradient) {
  for (int64_t n : kSizes) {
    const Tensor x = uniform({n}, 1), dy = uniform({n}, 2);
    const std::vector<Tensor> results = run([&] {
      const Tensor y = poisoned({n}), dx = poisoned({n});
      kernels().relu_forward(x, y);
      kernels().relu_backward(y, dy, dx);
      return std::vector<Tensor>{y, dx};
    });
    const Values vx = x.to_vector(), vdy = dy.to_vector();
    Values y(vx.size()), dx(vx.size());
    for (size_t i = 0; i < vx.size(); ++i) {
      y[i] = vx[i] > 0 ? vx[i] : 0;
      dx[i] = vx[i] > 0 ? vdy[i] : 0;
    }
    expect_exactly(results[0], y, "y");
    expect_exactly(results[1], dx, "dx");
  }
}

TEST_P(PointwiseTest, ReluKeepsNaNAndHasNoGradientAtZero) {
  for (int64_t n : {1, 16, 17, 40}) {  // in the vector part and in the rest
    const Tensor y = poisoned({n});
    kernels().relu_forward(Tensor::full({n}, kNaN, options()), y);
    for (double value : y.to_vector()) EXPECT_TRUE(std::isnan(value));
    const Tensor dx = poisoned({n});
    kernels().relu_backward(Tensor::zeros({n}, options()), Tensor::full({n}, 3, options()), dx);
    expect_exactly(dx, Values(static_cast<size_t>(n), 0), "dx");
  }
}

TEST_P(PointwiseTest, FillAndConvertEveryType) {
  const DType types[] = {DType::f32, DType::f64, DType::i64, DType::u8};
  for (int64_t n : {0, 1, 17, 40009}) {
    Values numbers(static_cast<size_t>(n));
    for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<double>(i % 251);
    for (DType from : types) {
      const Tensor filled = poisoned({n}, from), x = Tensor::from(numbers, {n}, {from, device()});
      kernels().fill(filled, 201);
      expect_exactly(filled, Values(numbers.size(), 201), "fill");
      for (DType to : types) {
        const Tensor y = poisoned({n}, to);
        kernels().convert(x, y);
        expect_exactly(y, numbers, std::string(name_of(from)) + " to " + name_of(to));
      }
    }
  }
}

TEST_P(PointwiseTest, BiasAndRowFactors) {
  for (const auto& [N, C] : kMatrices) {
    const Tensor x = uniform({N, C}, 1), bias = uniform({C}, 2), factor = uniform({N}, 3);
    const std::vector<Tensor> results = run([&] {
      const Tensor biased = poisoned({N, C}), scaled = poisoned({N, C});
      kernels().add_bias(x, bias, biased);
      kernels().scale_rows(x, factor, scaled);
      return std::vector<Tensor>{biased, scaled};
    });
    const Values vx = x.to_vector(), b = bias.to_vector(), s = factor.to_vector();
    Values biased(vx.size()), scaled(vx.size());
    for (size_t i = 0; i < vx.size(); ++i) {
      biased[i] = vx[i] + b[i % static_cast<size_t>(C)];
      scaled[i] = vx[i] * s[i / static_cast<size_t>(C)];
    }
    expect_within(results[0], biased, Values(vx.size(), 2 * eps()), "add_bias");
    expect_within(results[1], scaled, Values(vx.size(), eps()), "scale_rows");
  }
}

// A sum of n products in any order is off by at most n·eps·Σ|a_i b_i|.
TEST_P(PointwiseTest, SumsOverRowsAndProductsOfRows) {
  for (const auto& [N, C] : kMatrices) {
    const Tensor a = uniform({N, C}, 1), b = uniform({N, C}, 2);
    const std::vector<Tensor> results = run([&] {
      const Tensor column_sums = poisoned({C}), products = poisoned({N});
      kernels().sum_rows(a, column_sums);
      kernels().row_dot(a, b, products);
      return std::vector<Tensor>{column_sums, products};
    });
    const Values va = a.to_vector(), vb = b.to_vector();
    Values sums(static_cast<size_t>(C)), sums_bound(sums), dots(static_cast<size_t>(N)),
        dots_bound(dots);
    for (size_t i = 0; i < va.size(); ++i) {
      const size_t row = i / static_cast<size_t>(C), column = i % static_cast<size_t>(C);
      sums[column] += va[i];
      sums_bound[column] += static_cast<double>(N) * eps() * std::abs(va[i]);
      dots[row] += va[i] * vb[i];
      dots_bound[row] += static_cast<double>(C) * eps() * std::abs(va[i] * vb[i]);
    }
    expect_within(results[0], sums, sums_bound, "sum_rows " + a.describe());
    expect_within(results[1], dots, dots_bound, "row_dot " + a.describe());
  }
}

TEST_P(PointwiseTest, ColumnsSideBySideAndBack) {
  for (const auto& [N, A] : kMatrices) {
    for (int64_t B : {1, 5, 64}) {
      const Tensor a = uniform({N, A}, 1), b = uniform({N, B}, 2);
      const std::vector<Tensor> results = run([&] {
        const Tensor y = poisoned({N, A + B}), left = poisoned({N, A}), right = poisoned({N, B});
        kernels().concat_columns(a, b, y);
        kernels().split_columns(y, left, right);
        return std::vector<Tensor>{y, left, right};
      });
      const Values va = a.to_vector(), vb = b.to_vector();
      Values y;
      for (int64_t i = 0; i < N; ++i) {
        y.insert(y.end(), va.begin() + i * A, va.begin() + (i + 1) * A);
        y.insert(y.end(), vb.begin() + i * B, vb.begin() + (i + 1) * B);
      }
      expect_exactly(results[0], y, "concat_columns");
      expect_exactly(results[1], va, "split_columns: a");
      expect_exactly(results[2], vb, "split_columns: b");
    }
  }
}

TEST_P(PointwiseTest, GatherRowsOfAnyRank) {
  for (const Shape& row : {Shape{}, Shape{1}, Shape{17}, Shape{3, 5}, Shape{2, 3, 40, 7}}) {
    std::vector<int64_t> from = row.to_vector(), to = row.to_vector();
    const int64_t M = 11, N = 29, width = row.numel();
    from.insert(from.begin(), M);
    to.insert(to.begin(), N);
    const Tensor x = uniform(Shape(from), 1), index = labels(N, M, 2);
    const std::vector<Tensor> results = run([&] {
      const Tensor y = poisoned(Shape(to));
      kernels().gather_rows(x, index, y);
      return std::vector<Tensor>{y};
    });
    const Values vx = x.to_vector();
    Values y;
    for (double number : index.to_vector()) {
      const int64_t source = static_cast<int64_t>(number) * width;
      y.insert(y.end(), vx.begin() + source, vx.begin() + source + width);
    }
    expect_exactly(results[0], y, "y");
  }
}

// More tensors than one launch takes, some of them empty, each damaged in its own way or not at all.
TEST_P(PointwiseTest, FindsTheTensorsThatAreNotFinite) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const double largest = dtype() == DType::f32 ? std::numeric_limits<float>::max()
                                               : std::numeric_limits<double>::max();
  std::vector<Tensor> tensors;
  Values expected;
  for (int64_t i = 0; i < 211; ++i) {
    const int64_t n = i % 19 == 0 ? 0 : kSizes[i % 16];
    tensors.push_back(Tensor::full({n}, largest, options()));
    const double damage = std::vector<double>{kNaN, -kInfinity, kInfinity, -largest}[i % 4];
    const bool damaged = i % 3 == 0 && n > 0;
    const int64_t at = std::vector<int64_t>{0, n / 2, n - 1}[i % 9 / 3];
    if (damaged) tensors.back().rows(at, at + 1).fill(damage);
    expected.push_back(damaged && i % 4 != 3);
  }
  const Tensor found = run([&] {
    const Tensor y = poisoned({static_cast<int64_t>(tensors.size())}, DType::i64);
    kernels().find_non_finite(tensors.data(), y);
    return std::vector<Tensor>{y};
  })[0];
  expect_exactly(found, expected, "found");
}

MOCO_INSTANTIATE_KERNEL_TEST(PointwiseTest);

}  // namespace
}  // namespace mocograd
