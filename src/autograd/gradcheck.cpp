#include "autograd/gradcheck.h"

#include <algorithm>
#include <cmath>

namespace mocograd {
namespace {

double inner_product(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

class Checker {
 public:
  Checker(const DifferentiableFunction& f, const std::vector<Tensor>& inputs,
          const GradcheckOptions& options)
      : f_(f), options_(options) {
    for (size_t i = 0; i < inputs.size(); ++i) {
      MOCO_CHECK(inputs[i].defined() && inputs[i].dtype() == DType::f64, "gradcheck: input ", i,
                 " must be f64, got ", inputs[i].describe());
      inputs_.emplace_back(inputs[i].clone(), true);
    }
  }

  GradcheckResult run() {
    const Variable y = f_(inputs_);
    RandomStream random(options_.seed, Purpose::gradcheck, 1);
    const Tensor cotangent = random_normal(random, y.shape());
    cotangent_ = cotangent.to_vector();
    if (!y.requires_grad()) {
      result_.failure = "the result does not depend on any input that requires a gradient";
      return result_;
    }
    y.backward(cotangent);
    for (size_t i = 0; i < inputs_.size() && result_.failure.empty(); ++i) check_input(i);
    result_.passed = result_.failure.empty();
    return result_;
  }

 private:
  double loss() const {
    const NoGrad no_grad;
    return inner_product(cotangent_, f_(inputs_).data().to_vector());
  }

  void check_input(size_t input) {
    const Tensor x = inputs_[input].data();
    const Tensor dx = inputs_[input].grad();
    if (!dx.defined()) {
      result_.failure = detail::concatenate("input ", input, ": no gradient arrived");
      return;
    }
    const std::vector<double> analytic = dx.to_vector();
    double largest = 0;
    for (int64_t i = 0; i < x.numel(); ++i) {
      const double numeric = central_difference(x.data<double>()[i]);
      const double error = std::abs(analytic[i] - numeric);
      const double tolerance = options_.atol + options_.rtol * std::abs(numeric);
      ++result_.elements;
      result_.max_error = std::max(result_.max_error, error);
      largest = std::max(largest, std::abs(numeric));
      if (!(error <= tolerance)) {
        result_.failure = detail::concatenate("input ", input, " ", x.shape().to_string(), " at ",
                                              i, ": analytic ", analytic[i], ", numeric ", numeric,
                                              ", tolerance ", tolerance);
        return;
      }
    }
    if (!(largest >= options_.vacuous_below)) {
      result_.failure =
          detail::concatenate("input ", input, " ", x.shape().to_string(),
                              ": vacuous, no numeric gradient above ", options_.vacuous_below);
    }
  }

  double central_difference(double& x) const {
    const double before = x;
    x = before + options_.step;
    const double above = loss();
    x = before - options_.step;
    const double below = loss();
    x = before;
    return (above - below) / (2 * options_.step);
  }

  const DifferentiableFunction& f_;
  const GradcheckOptions& options_;
  std::vector<Variable> inputs_;
  std::vector<double> cotangent_;
  GradcheckResult result_;
};

std::vector<RegisteredCase>& registry() {
  static std::vector<RegisteredCase> cases;
  return cases;
}

}  // namespace

GradcheckResult gradcheck(const DifferentiableFunction& f, const std::vector<Tensor>& inputs,
                          const GradcheckOptions& options) {
  return Checker(f, inputs, options).run();
}

GradcheckCase::GradcheckCase(const char* op, Draw draw) {
  const RegisteredCase added{op, std::move(draw)};
  const auto by_name = [](const RegisteredCase& a, const RegisteredCase& b) { return a.op < b.op; };
  std::vector<RegisteredCase>& cases = registry();
  cases.insert(std::upper_bound(cases.begin(), cases.end(), added, by_name), added);
}

const std::vector<RegisteredCase>& gradcheck_cases() {
  return registry();
}

GradcheckResult check_case(const RegisteredCase& registered, int count, uint64_t seed) {
  GradcheckResult total;
  for (int draw = 0; draw < count; ++draw) {
    RandomStream random(seed, Purpose::gradcheck, 0, draw);
    const GradcheckInstance instance = registered.draw(random);
    GradcheckOptions options;
    options.seed = seed + static_cast<uint64_t>(draw);
    const GradcheckResult result = gradcheck(instance.function, instance.inputs, options);
    total.max_error = std::max(total.max_error, result.max_error);
    total.elements += result.elements;
    if (!result.passed) {
      total.failure = detail::concatenate(registered.op, ", draw ", draw, ": ", result.failure);
      return total;
    }
  }
  total.passed = true;
  return total;
}

Tensor random_normal(RandomStream& random, const Shape& shape) {
  Tensor tensor = Tensor::empty(shape, {.dtype = DType::f64});
  for (int64_t i = 0; i < tensor.numel(); ++i) tensor.data<double>()[i] = random.normal();
  return tensor;
}

Tensor random_off_zero(RandomStream& random, const Shape& shape, double gap) {
  Tensor tensor = random_normal(random, shape);
  for (int64_t i = 0; i < tensor.numel(); ++i) {
    double& x = tensor.data<double>()[i];
    x += std::copysign(gap, x);
  }
  return tensor;
}

}  // namespace mocograd
