// An operation of your own, and its gradient check. It runs on the numbers in the host's memory; an
// operation of the engine would call a kernel of the catalogue (tensor/backend.h) instead.
//
//   softplus: y = ln(1 + exp(x))          dx = dy / (1 + exp(−x))          saved: x
//
//   build/examples/own_operation
#include <cmath>
#include <cstdio>

#include "autograd/gradcheck.h"

using namespace mocograd;

namespace {

template <class F>
Tensor map(const Tensor& x, const F& f) {
  const Tensor y = Tensor::empty_like(x);
  for (int64_t i = 0; i < x.numel(); ++i) y.data<double>()[i] = f(i, x.data<double>()[i]);
  return y;
}

Variable softplus(const Variable& x) {
  const Tensor saved_x = x.data();
  const Tensor y = map(saved_x, [](int64_t, double value) { return std::log1p(std::exp(value)); });
  return make_result("softplus", y, {x}, [saved_x](const Tensor& dy, InputGradients& dx) {
    dx.add(0, map(dy, [&](int64_t i, double upstream) {
             return upstream / (1 + std::exp(-saved_x.data<double>()[i]));
           }));
  });
}

}  // namespace

int main() {
  RandomStream random(0, Purpose::gradcheck);
  const GradcheckResult result =
      gradcheck([](const std::vector<Variable>& inputs) { return softplus(inputs[0]); },
                {random_normal(random, {3, 4})});
  std::printf("softplus: %s, largest error %.1e over %lld elements %s\n",
              result.passed ? "gradient is right" : "WRONG GRADIENT", result.max_error,
              static_cast<long long>(result.elements), result.failure.c_str());
  return result.passed ? 0 : 1;
}
