// info_nce against plain loops in double, against the operations that it is made of, and where the
// loss is known.
#include "autograd/ops/info_nce.h"

#include <algorithm>

#include "autograd/ops/cross_entropy.h"
#include "kernel_cases.h"
#include "moco/moco.h"

namespace mocograd {
namespace {

constexpr double kDloss = 0.75;

struct Problem {
  int64_t N, D, K;
  double temperature;

  std::string name() const {
    return detail::concatenate("N D K T ", N, " ", D, " ", K, " ", temperature);
  }
};

// Numbers and how far a kernel's may be from them.
struct Bounded {
  Values value, bound;

  explicit Bounded(int64_t n) : value(static_cast<size_t>(n)), bound(value) {}
  void set(int64_t i, double number, double error) {
    value[static_cast<size_t>(i)] = number;
    bound[static_cast<size_t>(i)] = error;
  }
};

struct Expected {
  Bounded logits, max, sum, loss, dq;

  explicit Expected(const Problem& of)
      : logits(of.N * (1 + of.K)), max(of.N), sum(of.N), loss(1), dq(of.N * of.D) {}
};

class InfoNceTest : public KernelTest {
 protected:
  // Row i of what is expected. A logit is off by the rounding of its sum, of 1/T and of their
  // product; the row's largest such error, `off`, is what the maximum is off by at most, and each
  // exp(x − max) by twice that, beside the rounding of the difference, of exp and of the sum.
  void expect_row(const Problem& of, int64_t i, const Values& q, const Values& k,
                  const Values& queue, Expected& expected) const {
    const int64_t C = 1 + of.K, D = of.D;
    const double T = of.temperature, columns = static_cast<double>(C),
                 n = static_cast<double>(of.N);
    const auto key = [&](int64_t j, int64_t d) {
      return j == 0 ? k[i * D + d] : queue[(j - 1) * D + d];
    };
    Values x(static_cast<size_t>(C));
    double off = 0;
    for (int64_t j = 0; j < C; ++j) {
      double magnitude = 0;
      for (int64_t d = 0; d < D; ++d) {
        x[j] += q[i * D + d] * key(j, d) / T;
        magnitude += std::abs(q[i * D + d] * key(j, d)) / T;
      }
      const double error = (static_cast<double>(D + 1) * eps() + product_error()) * magnitude +
                           2 * eps() * std::abs(x[j]);
      expected.logits.set(i * C + j, x[j], error);
      off = std::max(off, error);
    }
    const auto [least, most] = std::minmax_element(x.begin(), x.end());
    const double max = *most, range = max - *least, tiny = 0x1p-140;
    double sum = 0;
    for (double logit : x) sum += std::exp(logit - max);
    const double rounding = eps() * (range + columns + 2);
    expected.max.set(i, max, off);
    expected.sum.set(i, sum, std::expm1(2 * off + rounding) * sum);
    const double loss = std::log(sum) - (x[0] - max);
    expected.loss.value[0] += loss / n;
    expected.loss.bound[0] +=
        (2 * off + rounding + eps() * (2 * std::log(sum) + 2 * range + loss)) / n;

    // p is off by the errors of its exp and of the sum; ∂L/∂⟨q, key⟩ by four roundings more.
    const double relative = std::expm1(2 * off + 2 * rounding + 4 * eps()) + 4 * eps();
    for (int64_t d = 0; d < D; ++d) {
      double value = 0, error = tiny;
      for (int64_t j = 0; j < C; ++j) {
        const double p = std::exp(x[j] - max) / sum, weight = kDloss / n / T * (p - (j == 0));
        const double weight_error =
            kDloss / n / T * (relative * p + (j == 0 ? 4 * eps() * (1 + p) : 0));
        value += weight * key(j, d);
        error +=
            std::abs(key(j, d)) *
            (weight_error + std::abs(weight) * (columns * eps() + 2 * eps() + product_error()));
      }
      expected.dq.set(i * D + d, value, error);
    }
  }

  void check(const Problem& of) const {
    const Tensor q = uniform({of.N, of.D}, 1), k = uniform({of.N, of.D}, 2),
                 queue = uniform({of.K, of.D}, 3), dloss = Tensor::full({1}, kDloss, options());
    const std::vector<Tensor> results = run([&] {
      const Tensor logits = poisoned({of.N, 1 + of.K}), max = poisoned({of.N}),
                   sum = poisoned({of.N}), loss = poisoned({1}), dq = poisoned({of.N, of.D});
      kernels().info_nce_forward(q, k, queue, of.temperature, logits, max, sum, loss);
      kernels().info_nce_backward(logits, max, sum, k, queue, of.temperature, dloss, dq);
      return std::vector<Tensor>{logits, max, sum, loss, dq};
    });
    Expected expected(of);
    const Values vq = q.to_vector(), vk = k.to_vector(), vqueue = queue.to_vector();
    for (int64_t i = 0; i < of.N; ++i) expect_row(of, i, vq, vk, vqueue, expected);
    const auto expect = [&](size_t result, const Bounded& numbers, const char* what) {
      expect_within(results[result], numbers.value, numbers.bound, what + (", " + of.name()));
    };
    expect(0, expected.logits, "logits");
    expect(1, expected.max, "max");
    expect(2, expected.sum, "sum");
    expect(3, expected.loss, "loss");
    expect(4, expected.dq, "dq");
  }

  struct Result {
    double loss;
    Tensor logits, dq;
  };
  // The operation on q, k and queue, its gradient for dloss = 1.
  static Result apply(const Tensor& q, const Tensor& k, const Tensor& queue, double temperature) {
    const Variable leaf(q, true);
    Result result;
    const Variable loss = info_nce(leaf, k, queue, temperature, &result.logits);
    loss.backward();
    result.loss = loss.data().item();
    result.dq = leaf.grad();
    return result;
  }
};

TEST_P(InfoNceTest, SmallShapesAndPrimes) {
  for (int64_t N : {1, 2, 5})
    for (int64_t D : {1, 3, 7})
      for (int64_t K : {1, 2, 11}) check({N, D, K, 0.07});
}

TEST_P(InfoNceTest, ShapesAroundTheTiles) {
  for (int64_t N : {7, 8, 9, 11, 12, 13, 19, 20, 21, 41}) check({N, 5, 17, 0.2});
  for (int64_t N : {63, 64, 65, 127, 128, 129}) check({N, 9, 31, 0.2});
  for (int64_t D : {15, 16, 17, 31, 32, 33, 63, 64, 65, 129}) check({3, D, 15, 0.5});
  for (int64_t K : {15, 16, 30, 32, 33, 63, 64, 65, 127, 128}) check({4, 6, K, 0.1});
}

// On a GPU blocks share the queue.
TEST_P(InfoNceTest, ALongQueue) {
  check({3, 16, 4099, 0.1});
  check({23, 128, 1024, 0.5});
}

TEST_P(InfoNceTest, ExtremeCosinesAreExact) {
  // Cosines of ±1 for the positive and ∓1 for the only negative.
  for (const double T : {0.07, 0.001}) {
    for (const double cosine : {1.0, -1.0}) {
      const auto of = [&](double x) { return Tensor::full({1, 1}, x, options()); };
      const Result result = apply(of(1), of(cosine), of(-cosine), T);
      const double gap = -2 * cosine / T;  // of the negative's logit over the positive's
      const double loss = gap > 0 ? gap + std::log1p(std::exp(-gap)) : std::log1p(std::exp(gap));
      EXPECT_NEAR(result.loss, loss, eps() * (2 + (gap > 0 ? 3 * gap : 0))) << T << ", " << cosine;
      const double p = gap > 0 ? 1 / (1 + std::exp(-gap)) : std::exp(gap) / (1 + std::exp(gap));
      const double expected = -2 * cosine * p / T;  // p·(queue − k)/T
      // The positive's p is rounded to 1 where it has won, all but the last place of it.
      EXPECT_NEAR(result.dq.item(), expected,
                  (std::abs(gap) + 8) * eps() / T + product_error() * std::abs(expected))
          << T << ", " << cosine;
    }
  }
}

TEST_P(InfoNceTest, EqualLogitsGiveTheLogarithmOfTheirNumberAndNoGradient) {
  for (const int64_t K : {1, 15, 100, 4096}) {
    const int64_t N = 5, D = 3;
    const Tensor k = uniform({1, D}, 2);
    const auto repeated = [&](int64_t rows) {
      const Tensor x = Tensor::empty({rows, D}, options());
      for (int64_t i = 0; i < rows; ++i) x.rows(i, i + 1).copy_from(k);
      return x;
    };
    const Result result = apply(uniform({N, D}, 1), repeated(N), repeated(K), 0.5);
    // Where a product rounds its factors the positive's logit does not.
    const double columns = static_cast<double>(1 + K),
                 of_logits = 2 * (4 * eps() + product_error()) * 3 / 0.5;
    EXPECT_NEAR(result.loss, std::log(columns), columns * eps() + of_logits) << K;
    const double bound = ((columns + 8) * eps() + of_logits + product_error()) / 0.5;
    expect_within(result.dq, Values(N * D, 0), Values(N * D, bound), "dq");
  }
}

// Σ_j ∂L/∂logits_ij = 0, so that nothing is to be gained in a direction that all keys have in common.
TEST_P(InfoNceTest, TheGradientIsOrthogonalToWhatAllKeysShare) {
  const int64_t N = 21, D = 6, K = 77;
  const auto with_last_one = [&](int64_t rows, uint32_t name) {
    Values values = uniform({rows, D}, name).to_vector();
    for (int64_t i = 0; i < rows; ++i) values[i * D + D - 1] = 1;
    return Tensor::from(values, {rows, D}, options());
  };
  const Values dq =
      apply(uniform({N, D}, 1), with_last_one(N, 2), with_last_one(K, 3), 0.2).dq.to_vector();
  const double bound = ((2 * K + 10) * eps() + product_error()) / N / 0.2;
  double largest = 0;
  for (int64_t i = 0; i < N; ++i) {
    EXPECT_NEAR(dq[i * D + D - 1], 0, bound) << i;
    for (int64_t d = 0; d + 1 < D; ++d) largest = std::max(largest, std::abs(dq[i * D + d]));
  }
  EXPECT_GT(largest, 0.01);
}

TEST_P(InfoNceTest, NaNShows) {
  const Tensor q = uniform({3, 4}, 1), k = uniform({3, 4}, 2), queue = uniform({37, 4}, 3);
  q.rows(1, 2).fill(kNaN);
  const Result bad_query = apply(q, k, queue, 0.2);
  EXPECT_TRUE(std::isnan(bad_query.loss));
  for (int64_t i = 0; i < 3; ++i)
    for (double value : bad_query.dq.rows(i, i + 1).to_vector())
      EXPECT_EQ(std::isnan(value), i == 1) << i;
  for (int64_t at : {0, 15, 16, 36}) {
    const Tensor damaged = queue.clone();
    damaged.rows(at, at + 1).fill(kNaN);
    const Result bad_key = apply(uniform({3, 4}, 1), k, damaged, 0.2);
    EXPECT_TRUE(std::isnan(bad_key.loss)) << at;
    for (double value : bad_key.dq.to_vector()) EXPECT_TRUE(std::isnan(value)) << at;
  }
}

// Bit for bit on the CPU, and on the emulator, for which no multiply-adds are made.
TEST_P(InfoNceTest, IsTheOperationsOneByOne) {
  if (device() == Device::cuda) GTEST_SKIP() << "on a GPU sums are taken in another order";
  for (const Problem& of : {Problem{1, 1, 1, 0.07},
                            {5, 3, 18, 0.07},
                            {300, 4, 20, 0.2},
                            {21, 33, 100, 0.2},
                            {8, 16, 1025, 0.1}}) {
    const Tensor q = uniform({of.N, of.D}, 1), k = uniform({of.N, of.D}, 2),
                 queue = uniform({of.K, of.D}, 3);
    const Result result = apply(q, k, queue, of.temperature);
    const Variable leaf(q, true);
    const Variable logits = info_nce_logits(leaf, k, queue, of.temperature);
    const Variable loss = cross_entropy(logits, Tensor::zeros({of.N}, {DType::i64, device()}));
    loss.backward();
    EXPECT_EQ(result.logits.to_vector(), logits.data().to_vector()) << of.name();
    EXPECT_EQ(result.loss, loss.data().item()) << of.name();
    EXPECT_EQ(result.dq.to_vector(), leaf.grad().to_vector()) << of.name();
  }
}

MOCO_INSTANTIATE_KERNEL_TEST(InfoNceTest);
MOCO_INSTANTIATE_TENSOR_CORE_TEST(InfoNceTest);

TEST(InfoNceOperation, RefusesWhatDoesNotFitTogether) {
  const auto of = [](const Shape& shape, DType dtype = DType::f32) {
    return Tensor::full(shape, 1, {.dtype = dtype});
  };
  const auto error_of = [](const Tensor& q, const Tensor& k, const Tensor& queue, double T) {
    try {
      info_nce(Variable(q), k, queue, T);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  const Tensor q = of({2, 3}), queue = of({5, 3});
  const std::string needs = "info_nce: needs q and k [N, D] and a queue [K, D], got ";
  for (const auto& [error, text] : std::vector<std::pair<std::string, std::string>>{
           {error_of(q, of({3, 3}), queue, 1), needs + "f32 [2, 3], f32 [3, 3] and f32 [5, 3]"},
           {error_of(q, q, of({5, 2}), 1), needs + "f32 [2, 3], f32 [2, 3] and f32 [5, 2]"},
           {error_of(q, q, of({0, 3}), 1), needs + "f32 [2, 3], f32 [2, 3] and f32 [0, 3]"},
           {error_of(q, of({2, 3}, DType::f64), queue, 1), needs + "f32 [2, 3], f64 [2, 3] and"},
           {error_of(q, q, of({5, 3}, DType::f64), 1), needs + "f32 [2, 3], f32 [2, 3] and f64"},
           {error_of({}, q, queue, 1), needs + "undefined, f32 [2, 3] and f32 [5, 3]"},
           {error_of(of({2, 3}, DType::bf16), of({2, 3}, DType::bf16), of({5, 3}, DType::bf16), 1),
            "info_nce: needs f32 or f64, got bf16 [2, 3]"},
           {error_of(q, q, queue, 0), "info_nce: needs a temperature above 0, got 0"},
           {error_of(q, q, queue, kNaN), "info_nce: needs a temperature above 0, got nan"}})
    EXPECT_EQ(error.rfind(text, 0), 0u) << error;
}

}  // namespace
}  // namespace mocograd
