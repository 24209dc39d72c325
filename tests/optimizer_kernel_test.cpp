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
      kernels().sgd_step(g, lr, mu, lambda, velocity, parameter);
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
        kernels().ema(query, m, average);
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

MOCO_INSTANTIATE_KERNEL_TEST(OptimizerKernelTest);

}  // namespace
}  // namespace mocograd
