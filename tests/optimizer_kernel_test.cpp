// The kernels that change parameters in place, against the formulas in double.
#include "kernel_cases.h"

namespace mocograd {
namespace {

class OptimizerKernelTest : public KernelTest {};

const int64_t kSizes[] = {1, 3, 15, 16, 17, 127, 16385, 50021};

TEST_P(OptimizerKernelTest, SgdWithMomentumAndWeightDecay) {
  const double lr = 0.03, mu = 0.9, lambda = 1e-2;
  for (int64_t n : kSizes) {
    const Tensor g = uniform({n}, 1), v = uniform({n}, 2), theta = uniform({n}, 3);
    const std::vector<Tensor> results = run([&] {
      const Tensor velocity = v.clone(), parameter = theta.clone();
      const SgdUpdate update{g, velocity, parameter, {}};
      kernels().sgd_step({&update, 1}, lr, mu, lambda, 1);
      return std::vector<Tensor>{velocity, parameter};
    });
    const Values vg = g.to_vector(), vt = theta.to_vector();
    Values velocity = v.to_vector(), parameter = vt;
    for (size_t i = 0; i < vg.size(); ++i) {
      velocity[i] = mu * velocity[i] + (vg[i] + lambda * vt[i]);
      parameter[i] -= lr * velocity[i];
    }
    expect_within(results[0], velocity, Values(vg.size(), 4 * eps()), "v");
    expect_within(results[1], parameter, Values(vg.size(), 2 * eps()), "theta");
  }
}

TEST_P(OptimizerKernelTest, ExponentialMovingAverage) {
  for (double m : {0.0, 0.99, 0.999, 1.0}) {
    for (int64_t n : kSizes) {
      const Tensor query = uniform({n}, 1), key = uniform({n}, 2);
      const std::vector<Tensor> results = run([&] {
        const Tensor average = key.clone();
        const EmaUpdate update{query, average};
        kernels().ema({&update, 1}, m);
        return std::vector<Tensor>{average};
      });
      const Values q = query.to_vector();
      Values average = key.to_vector();
      for (size_t i = 0; i < q.size(); ++i) average[i] = m * average[i] + (1 - m) * q[i];
      const double bound = m == 0 || m == 1 ? 0 : 3 * eps();
      expect_within(results[0], average, Values(q.size(), bound), "theta_k");
    }
  }
}

// To the bit: where a run stops it makes two passes, where it goes on, one.
TEST_P(OptimizerKernelTest, SgdWithTheAverageIsSgdAndThenTheAverage) {
  const double lr = 0.03, mu = 0.9, lambda = 1e-2, m = 0.99;
  for (int64_t n : kSizes) {
    const Tensor g = uniform({n}, 1), v = uniform({n}, 2), theta = uniform({n}, 3),
                 key = uniform({n}, 4);
    const auto after = [&](bool one_pass) {
      return run([&] {
        const SgdUpdate update{g, v.clone(), theta.clone(), one_pass ? key.clone() : Tensor()};
        kernels().sgd_step({&update, 1}, lr, mu, lambda, m);
        if (one_pass) return std::vector<Tensor>{update.v, update.theta, update.average};
        const EmaUpdate average{update.theta, key.clone()};
        kernels().ema({&average, 1}, m);
        return std::vector<Tensor>{update.v, update.theta, average.theta_k};
      });
    };
    const std::vector<Tensor> one = after(true), two = after(false);
    for (size_t i = 0; i < 3; ++i) expect_exactly(one[i], two[i].to_vector(), "v, theta, average");
  }
}

// More parameters than one launch takes, of sizes around what a block takes.
TEST_P(OptimizerKernelTest, ManyParameters) {
  std::vector<Tensor> before;
  for (int64_t i = 0; i < 350; ++i) {
    const int64_t n = i % 50 == 0 ? 4095 + i / 50 % 3 : 1 + i % 7;
    before.push_back(uniform({n}, static_cast<uint64_t>(i)));
  }
  const std::vector<Tensor> results = run([&] {
    std::vector<SgdUpdate> sgd, both;
    std::vector<EmaUpdate> ema;
    std::vector<Tensor> after;
    for (const Tensor& x : before) {
      sgd.push_back({x, x.clone(), x.clone(), {}});
      both.push_back({x, x.clone(), x.clone(), Tensor::zeros_like(x)});
      ema.push_back({x, Tensor::zeros_like(x)});
    }
    kernels().sgd_step(sgd, 0.5, 0, 1, 0.75);
    kernels().sgd_step(both, 0.25, 0, 1, 0.75);
    kernels().ema(ema, 0.75);
    for (size_t i = 0; i < before.size(); ++i) {
      after.push_back(sgd[i].theta);
      after.push_back(ema[i].theta_k);
      after.push_back(both[i].average);
    }
    return after;
  });
  for (size_t i = 0; i < before.size(); ++i) {
    Values theta, theta_k, average;
    for (double x : before[i].to_vector())
      theta.push_back(x - 0.5 * (x + x)), theta_k.push_back(x / 4), average.push_back(x / 8);
    expect_exactly(results[3 * i], theta, "theta");
    expect_exactly(results[3 * i + 1], theta_k, "theta_k");
    expect_exactly(results[3 * i + 2], average, "average");
  }
}

MOCO_INSTANTIATE_KERNEL_TEST(OptimizerKernelTest);

}  // namespace
}  // namespace mocograd
