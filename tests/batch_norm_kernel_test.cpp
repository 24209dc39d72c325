// The batch normalisation kernels against sums in double.
//
// Errors: a sum of n terms in any order is off by at most n·eps·Σ|terms|. The forward pass is
// judged with the mean and variance it wrote itself (which are judged on their own), the backward
// pass with the ones it was given, so that each bound counts only the roundings of its own pass.
#include <algorithm>

#include "kernel_cases.h"

namespace mocograd {
namespace {

struct Case {
  int64_t S, n, C;         // groups, pixels a group, channels
  bool displaced = false;  // activations lie where no vector begins
};
// Also around vectors of channels, and, of a GPU, around chunks of rows and columns of a block.
const Case kCases[] = {
    {1, 2, 1},     {1, 5, 3},        {2, 7, 5},         {3, 11, 16},  {1, 67, 17},   {2, 64, 32},
    {1, 131, 64},  {4, 33, 128},     {2, 61, 129},      {1, 3, 2048}, {2, 2053, 16}, {1, 1025, 32},
    {1, 20011, 1}, {2, 4099, 67},    {1, 300, 513},     {2, 1, 8},    {8, 9, 7},     {3, 33, 9},
    {1, 2049, 8},  {2, 513, 24},     {1, 511, 24},      {2, 256, 64}, {1, 257, 64},  {2, 65, 264},
    {1, 63, 264},  {2, 37, 8, true}, {1, 300, 64, true}};

class BatchNormKernelTest : public KernelTest {
 protected:
  static Tensor placed(const Case& size, const Tensor& x) {
    return size.displaced ? displaced(x) : x;
  }
  // Those that a forward pass takes of x.
  void expect_statistics(const Case& size, const Tensor& x) const;
};

struct Reference {
  Case size;
  Values x;

  size_t channel(size_t i) const { return i % static_cast<size_t>(size.C); }
  // The place of element i's group and channel in mean and var.
  size_t slot(size_t i) const {
    const size_t C = static_cast<size_t>(size.C);
    return i / (static_cast<size_t>(size.n) * C) * C + channel(i);
  }
  size_t slots() const { return static_cast<size_t>(size.S * size.C); }

  // Σ over a group and channel of f(element, slot), divided by n; in long double.
  Values average(const std::function<long double(double, size_t)>& f) const {
    std::vector<long double> sum(slots());
    for (size_t i = 0; i < x.size(); ++i) sum[slot(i)] += f(x[i], slot(i));
    Values result;
    for (long double value : sum) result.push_back(static_cast<double>(value / size.n));
    return result;
  }
  Values mean() const {
    return average([](double value, size_t) { return value; });
  }
  Values var(const Values& mean) const {
    return average([&](double value, size_t s) {
      const long double d = static_cast<long double>(value) - mean[s];
      return d * d;
    });
  }
};

// Rounded to eps·|mean| when it is written; before that, deviations from the mean are summed over
// chunks of at least 64 pixels, and the chunks in double.
Values mean_bound(const Reference& reference, const Values& mean, const Values& var, double eps) {
  const double n = static_cast<double>(reference.size.n);
  Values bound(mean.size());
  for (size_t i = 0; i < bound.size(); ++i) {
    bound[i] = eps * (std::abs(mean[i]) + n * std::sqrt(var[i])) +
               0x1p-52 * (n / 64 + 1) * std::abs(mean[i]);
  }
  return bound;
}

// n roundings of a sum of squares: of deviations from a chunk's mean, which is off by at most 256
// roundings (so many numbers go into one running sum of a chunk), or on a GPU from one of the chunk's
// numbers; what either is away from the mean is corrected for afterwards.
Values var_bound(const Reference& reference, const Values& mean, const Values& var, double eps) {
  const double n = static_cast<double>(reference.size.n);
  Values bound(var.size());
  for (size_t i = 0; i < bound.size(); ++i) {
    bound[i] = (n + 4) * eps * (var[i] + std::pow(std::min(n, 256.0) * eps * mean[i], 2));
  }
  return bound;
}

TEST_P(BatchNormKernelTest, ForwardInEveryForm) {
  for (const Case& size : kCases) {
    const Shape shape = {size.S, size.n, 1, size.C};
    const Tensor x = placed(size, uniform(shape, 1, -1, 2)), gamma = uniform({size.C}, 2, 0.5, 1.5),
                 beta = uniform({size.C}, 3), residual = placed(size, uniform(shape, 4));
    const Reference reference{size, x.to_vector()};
    const Values g = gamma.to_vector(), b = beta.to_vector(), r = residual.to_vector();
    for (bool relu : {false, true}) {
      for (bool add : {false, true}) {
        const BatchNormConfig config{.eps = 1e-5, .relu = relu};
        const std::vector<Tensor> results = run([&] {
          const Tensor mean = poisoned({size.S, size.C}), var = poisoned({size.S, size.C}),
                       y = placed(size, poisoned(shape));
          kernels().batch_norm_forward(x, gamma, beta, add ? residual : Tensor(), config, mean, var,
                                       y);
          return std::vector<Tensor>{mean, var, y};
        });
        const Values mean = reference.mean(), var = reference.var(mean);
        expect_within(results[0], mean, mean_bound(reference, mean, var, eps()), "mean");
        expect_within(results[1], var, var_bound(reference, mean, var, eps()), "var");
        const Values m = results[0].to_vector(), v = results[1].to_vector();
        Values y(reference.x.size()), bound(y);
        for (size_t i = 0; i < y.size(); ++i) {
          const size_t c = reference.channel(i), s = reference.slot(i);
          const double scaled = (reference.x[i] - m[s]) * g[c] / std::sqrt(v[s] + config.eps);
          y[i] = scaled + b[c] + (add ? r[i] : 0);
          bound[i] = eps() * (3 * std::abs(scaled) + 2 * std::abs(b[c]) + std::abs(r[i]));
          if (relu && y[i] < 0) y[i] = 0;
        }
        expect_within(results[2], y, bound, "y");
      }
    }
  }
}

TEST_P(BatchNormKernelTest, GivenStatisticsAreUsedAndKept) {
  for (const Case& size : {Case{1, 37, 19}, Case{3, 37, 19}, Case{2, 4099, 67}}) {
    const Shape shape = {size.S * size.n, size.C};
    const Tensor x = uniform(shape, 1), gamma = uniform({size.C}, 2), beta = uniform({size.C}, 3),
                 mean = uniform({size.S, size.C}, 4), var = uniform({size.S, size.C}, 5, 0.5, 2);
    const Reference reference{size, x.to_vector()};
    const Values mean_before = mean.to_vector(), var_before = var.to_vector();
    const BatchNormConfig config{.eps = 1e-3, .batch_statistics = false};
    const std::vector<Tensor> results = run([&] {
      const Tensor y = poisoned(shape);
      kernels().batch_norm_forward(x, gamma, beta, Tensor(), config, mean, var, y);
      return std::vector<Tensor>{y};
    });
    const Values g = gamma.to_vector(), b = beta.to_vector();
    Values y(reference.x.size()), bound(y);
    for (size_t i = 0; i < y.size(); ++i) {
      const size_t c = reference.channel(i), s = reference.slot(i);
      const double scaled =
          (reference.x[i] - mean_before[s]) * g[c] / std::sqrt(var_before[s] + config.eps);
      y[i] = scaled + b[c];
      bound[i] = eps() * (3 * std::abs(scaled) + 2 * std::abs(b[c]));
    }
    expect_within(results[0], y, bound, "y");
    expect_exactly(mean, mean_before, "mean");
    expect_exactly(var, var_before, "var");
  }
}

void BatchNormKernelTest::expect_statistics(const Case& size, const Tensor& x) const {
  const Reference reference{size, x.to_vector()};
  const Tensor mean = poisoned({size.S, size.C}), var = poisoned({size.S, size.C});
  kernels().batch_norm_forward(x, Tensor::full({size.C}, 1, options()),
                               Tensor::zeros({size.C}, options()), Tensor(), {}, mean, var,
                               poisoned(x.shape()));
  const Values m = reference.mean(), v = reference.var(m);
  expect_within(mean, m, mean_bound(reference, m, v, eps()), "mean");
  expect_within(var, v, var_bound(reference, m, v, eps()), "var");
}

// The squares of such numbers agree in all their leading digits: E[x²] − E[x]² would be off by more
// than the variance itself.
TEST_P(BatchNormKernelTest, VarianceOfSmallNoiseOnALargeMean) {
  for (const auto& [size, large] :
       {std::pair(Case{1, 5000, 16}, 1e4), std::pair(Case{2, 1000, 67}, 1e4),
        std::pair(Case{3, 61, 16}, 1e6)})
    expect_statistics(size, uniform({size.S * size.n, size.C}, 1, large - 1, large + 1));
}

// A chunk's first pixel is what a GPU takes deviations from: here it lies as far away as one of n can.
TEST_P(BatchNormKernelTest, VarianceAroundAnOutlier) {
  for (const Case& size : {Case{1, 5000, 16}, Case{2, 1000, 67}}) {
    const Tensor x = uniform({size.S * size.n, size.C}, 1, -1e-3, 1e-3);
    for (int64_t g = 0; g < size.S; ++g) x.rows(g * size.n, g * size.n + 1).fill(1e3);
    expect_statistics(size, x);
  }
}

TEST_P(BatchNormKernelTest, NaNReachesItsChannelAndGroupOnly) {
  const int64_t n = 40, C = 18;
  Tensor x = uniform({2 * n, C}, 1);
  x.rows(n + 3, n + 4).reshape({C, 1}).rows(5, 6).fill(kNaN);
  const Tensor mean = poisoned({2, C}), var = poisoned({2, C}), y = poisoned({2 * n, C});
  kernels().batch_norm_forward(x, Tensor::full({C}, 1, options()), Tensor::zeros({C}, options()),
                               Tensor(), {.relu = true}, mean, var, y);
  const Values values = y.to_vector();
  for (size_t i = 0; i < values.size(); ++i) {
    const bool hit = i >= static_cast<size_t>(n * C) && i % static_cast<size_t>(C) == 5;
    ASSERT_EQ(std::isnan(values[i]), hit) << i;
  }
}

struct Gradients {
  Values dz, dx, dx_bound, dgamma, dgamma_bound, dbeta, dbeta_bound;
};

// The formulas of the catalogue, from the numbers the kernel is given.
Gradients reference_gradients(const Reference& reference, const Values& dy, const Values& y,
                              const Values& gamma, const BatchNormConfig& config,
                              const Values& mean, const Values& var, double eps) {
  const size_t count = dy.size(), C = static_cast<size_t>(reference.size.C);
  const double n = static_cast<double>(reference.size.n);
  Gradients result{dy, Values(count), Values(count), Values(C), Values(C), Values(C), Values(C)};
  Values x_hat(count), sum(reference.slots()), sum_x(sum), size(sum), size_x(sum);
  for (size_t i = 0; i < count; ++i) {
    const size_t s = reference.slot(i), c = reference.channel(i);
    if (config.relu && !(y[i] > 0)) result.dz[i] = 0;
    x_hat[i] = (reference.x[i] - mean[s]) / std::sqrt(var[s] + config.eps);
    sum[s] += result.dz[i];
    sum_x[s] += result.dz[i] * x_hat[i];
    size[s] += std::abs(result.dz[i]);
    size_x[s] += std::abs(result.dz[i] * x_hat[i]);
    result.dbeta[c] += result.dz[i];
    result.dgamma[c] += result.dz[i] * x_hat[i];
    result.dbeta_bound[c] += n * eps * std::abs(result.dz[i]);
    result.dgamma_bound[c] += (n + 3) * eps * std::abs(result.dz[i] * x_hat[i]);
  }
  const double share = config.batch_statistics ? 1 / n : 0;
  for (size_t i = 0; i < count; ++i) {
    const size_t s = reference.slot(i);
    const double factor = gamma[reference.channel(i)] / std::sqrt(var[s] + config.eps);
    result.dx[i] = factor * (result.dz[i] - share * (sum[s] + x_hat[i] * sum_x[s]));
    result.dx_bound[i] =
        std::abs(factor) * eps *
        (3 * std::abs(result.dz[i]) + (n + 6) * share * (size[s] + std::abs(x_hat[i]) * size_x[s]));
  }
  return result;
}

TEST_P(BatchNormKernelTest, BackwardInEveryForm) {
  for (const Case& size : kCases) {
    const Shape shape = {size.S, size.n, 1, size.C};
    const Tensor x = placed(size, uniform(shape, 1, -1, 2)), y = placed(size, uniform(shape, 2)),
                 part = placed(size, uniform(shape, 3)), more = placed(size, uniform(shape, 7)),
                 gamma = uniform({size.C}, 4, 0.5, 1.5), mean = uniform({size.S, size.C}, 5, 0, 1),
                 var = uniform({size.S, size.C}, 6, 0.5, 1);
    const Tensor both = Tensor::empty_like(part);
    kernels().add(part, more, both);
    const Reference reference{size, x.to_vector()};
    for (int form = 0; form < 16; ++form) {
      const bool relu = form & 1, residual = form & 2, training = form & 4, in_two = form & 8;
      if (!training && size.S > 1) continue;
      const Tensor& dy = in_two ? both : part;
      const BatchNormConfig config{.batch_statistics = training, .relu = relu};
      const std::vector<Tensor> results = run([&] {
        const Tensor dx = placed(size, poisoned(shape)), dgamma = poisoned({size.C}),
                     dbeta = poisoned({size.C}),
                     dresidual = residual ? placed(size, poisoned(shape)) : Tensor();
        kernels().batch_norm_backward(part, in_two ? more : Tensor(), x, relu ? y : Tensor(), gamma,
                                      config, mean, var, Tensor(), dx, dgamma, dbeta, dresidual);
        std::vector<Tensor> written = {dx, dgamma, dbeta};
        if (residual) written.push_back(dresidual);
        return written;
      });
      const Gradients expected =
          reference_gradients(reference, dy.to_vector(), y.to_vector(), gamma.to_vector(), config,
                              mean.to_vector(), var.to_vector(), eps());
      expect_within(results[0], expected.dx, expected.dx_bound, "dx");
      expect_within(results[1], expected.dgamma, expected.dgamma_bound, "dgamma");
      expect_within(results[2], expected.dbeta, expected.dbeta_bound, "dbeta");
      if (residual) expect_exactly(results[3], expected.dz, "dresidual");
    }
  }
}

TEST_P(BatchNormKernelTest, BackwardOfKnownSums) {
  for (const Case& size : kCases) {
    const Shape shape = {size.S, size.n, 1, size.C};
    const Tensor x = uniform(shape, 1, -1, 2), dz = uniform(shape, 3),
                 gamma = uniform({size.C}, 4, 0.5, 1.5), mean = uniform({size.S, size.C}, 5, 0, 1),
                 var = uniform({size.S, size.C}, 6, 0.5, 1);
    const Reference reference{size, x.to_vector()};
    const Values of_dz = dz.to_vector(), m = mean.to_vector();
    const size_t C = static_cast<size_t>(size.C);
    Values sums(2 * reference.slots());
    for (size_t i = 0; i < of_dz.size(); ++i) {
      const size_t slot = reference.slot(i), at = slot / C * 2 * C + slot % C;
      sums[at] += of_dz[i];
      sums[at + C] += of_dz[i] * (reference.x[i] - m[slot]);
    }
    const Tensor known = Tensor::from(sums, {size.S, 2, size.C}, options());
    const std::vector<Tensor> results = run([&] {
      const Tensor dx = poisoned(shape), dgamma = poisoned({size.C}), dbeta = poisoned({size.C});
      kernels().batch_norm_backward(dz, Tensor(), x, Tensor(), gamma, {}, mean, var, known, dx,
                                    dgamma, dbeta, Tensor());
      return std::vector<Tensor>{dx, dgamma, dbeta};
    });
    const Gradients expected =
        reference_gradients(reference, of_dz, {}, gamma.to_vector(), {}, m, var.to_vector(), eps());
    expect_within(results[0], expected.dx, expected.dx_bound, "dx");
    expect_within(results[1], expected.dgamma, expected.dgamma_bound, "dgamma");
    expect_within(results[2], expected.dbeta, expected.dbeta_bound, "dbeta");
  }
}

TEST_P(BatchNormKernelTest, OfNoPixelTheParametersGradientsAreZero) {
  const Tensor none = uniform({0, 1, 1, 8}, 1), gamma = uniform({8}, 2), mean = uniform({1, 8}, 3),
               var = uniform({1, 8}, 4, 0.5, 1);
  const std::vector<Tensor> results = run([&] {
    const Tensor dgamma = poisoned({8}), dbeta = poisoned({8});
    kernels().batch_norm_backward(none, Tensor(), none, none, gamma, {.relu = true}, mean, var,
                                  Tensor(), Tensor::empty_like(none), dgamma, dbeta, Tensor());
    return std::vector<Tensor>{dgamma, dbeta};
  });
  for (const Tensor& gradient : results) expect_exactly(gradient, Values(8, 0), "of no pixel");
}

TEST_P(BatchNormKernelTest, LargeGroupsAreSharedBetweenThreads) {
  // More than 2^18 elements a group, a chunk that is not full; and on a GPU more chunks than threads
  // read at once.
  for (const Case& size : {Case{2, 5003, 64}, Case{1, 33001, 17}}) {
    const Shape shape = {size.S * size.n, size.C};
    const Tensor x = uniform(shape, 1), gamma = uniform({size.C}, 2), beta = uniform({size.C}, 3),
                 dy = uniform(shape, 4);
    const Reference reference{size, x.to_vector()};
    const std::vector<Tensor> results = run([&] {
      const Tensor mean = poisoned({size.S, size.C}), var = poisoned({size.S, size.C}),
                   y = poisoned(shape), dx = poisoned(shape), dgamma = poisoned({size.C}),
                   dbeta = poisoned({size.C});
      kernels().batch_norm_forward(x, gamma, beta, Tensor(), {.relu = true}, mean, var, y);
      kernels().batch_norm_backward(dy, Tensor(), x, y, gamma, {.relu = true}, mean, var, Tensor(),
                                    dx, dgamma, dbeta, Tensor());
      return std::vector<Tensor>{mean, var, y, dx, dgamma, dbeta};
    });
    const Values mean = reference.mean(), var = reference.var(mean);
    expect_within(results[0], mean, mean_bound(reference, mean, var, eps()), "mean");
    expect_within(results[1], var, var_bound(reference, mean, var, eps()), "var");
    const Gradients expected =
        reference_gradients(reference, dy.to_vector(), results[2].to_vector(), gamma.to_vector(),
                            {.relu = true}, results[0].to_vector(), results[1].to_vector(), eps());
    expect_within(results[3], expected.dx, expected.dx_bound, "dx");
    expect_within(results[4], expected.dgamma, expected.dgamma_bound, "dgamma");
    expect_within(results[5], expected.dbeta, expected.dbeta_bound, "dbeta");
  }
}

// Of more batch norms than one launch takes.
TEST_P(BatchNormKernelTest, RunningStatistics) {
  const double momentum = 0.1;
  const Case sizes[] = {{3, 10, 21}, {1, 2, 300}, {8, 5, 64}, {2, 1000, 1}};
  std::vector<RunningUpdate> old;
  for (uint32_t i = 0; i < 75; ++i) {
    const auto& [S, n, C, displaced] = sizes[i % 4];
    old.push_back({uniform({S, C}, 4 * i), uniform({S, C}, 4 * i + 1, 0, 1), n,
                   uniform({C}, 4 * i + 2), uniform({C}, 4 * i + 3, 0, 1)});
  }
  const std::vector<Tensor> results = run([&] {
    std::vector<RunningUpdate> updates = old;
    std::vector<Tensor> written;
    for (RunningUpdate& update : updates)
      for (Tensor* running : {&update.running_mean, &update.running_var})
        written.push_back(*running = running->clone());
    kernels().batch_norm_update_running(updates, momentum);
    return written;
  });
  for (size_t i = 0; i < old.size(); ++i) {
    const auto expect = [&](const Tensor& result, const Tensor& running, const Tensor& of_batch,
                            double factor, const char* name) {
      const size_t C = static_cast<size_t>(running.numel());
      const double S = static_cast<double>(of_batch.dim(0));
      Values expected = running.to_vector();
      for (double& value : expected) value *= 1 - momentum;
      const Values values = of_batch.to_vector();
      for (size_t k = 0; k < values.size(); ++k)
        expected[k % C] += momentum * factor * values[k] / S;
      expect_within(result, expected, Values(C, 4 * eps()), name + std::to_string(i));
    };
    const double n = static_cast<double>(old[i].n);
    expect(results[2 * i], old[i].running_mean, old[i].mean, 1, "running_mean ");
    expect(results[2 * i + 1], old[i].running_var, old[i].var, n / (n - 1), "running_var ");
  }
}

MOCO_INSTANTIATE_KERNEL_TEST(BatchNormKernelTest);

}  // namespace
}  // namespace mocograd
