#include "autograd/gradcheck.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <utility>

#include "tensor/statistics.h"

namespace mocograd {
namespace {

// ⟨c, a − b⟩. Subtracted first, so that what did not move adds no rounding.
double weighted_difference(const std::vector<double>& c, const std::vector<double>& a,
                           const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < c.size(); ++i) sum += c[i] * (a[i] - b[i]);
  return sum;
}

// What rounding may make of such a difference: of the numbers that moved, Σ |c_i| max(|a_i|, |b_i|) 2⁻⁴⁴.
double rounding_of_difference(const std::vector<double>& c, const std::vector<double>& a,
                              const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < c.size(); ++i)
    if (a[i] != b[i]) sum += std::abs(c[i]) * std::max(std::abs(a[i]), std::abs(b[i]));
  return std::ldexp(sum, -44);
}

struct Difference {
  double value = 0, rounding = 0;  // what was found, and what rounding may have made of it
};

// |x|, a NaN above all others.
double magnitude(double x) {
  return std::isnan(x) ? std::numeric_limits<double>::infinity() : std::abs(x);
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
      numbers_.push_back(inputs_[i].data().to(Device::cpu));
      steps_.push_back(options.step);
      const double deviation = statistics_of(numbers_[i]).std;
      if (options.unchosen_inputs && deviation > 0) steps_[i] *= deviation;
    }
  }

  GradcheckResult run() {
    if (!compute()) {
      result_.failure = "the result does not depend on any input that requires a gradient";
      return result_;
    }
    for (size_t i = 0; i < inputs_.size() && result_.failure.empty(); ++i) check_input(i);
    result_.passed = result_.failure.empty();
    return result_;
  }

  GradcheckNumbers numbers() {
    GradcheckNumbers numbers;
    compute();
    numbers.output = output_;
    numbers.cotangent = Tensor::from(cotangent_, output_.shape(), {.dtype = DType::f64});
    for (size_t input = 0; input < inputs_.size(); ++input) {
      const Tensor numeric = Tensor::empty_like(numbers_[input]);
      for (int64_t i = 0; i < numeric.numel(); ++i) {
        const std::optional<Difference> difference = central_difference(input, i);
        numeric.data<double>()[i] =
            difference ? difference->value : std::numeric_limits<double>::quiet_NaN();
      }
      numbers.inputs.push_back(numbers_[input]);
      numbers.analytic.push_back(inputs_[input].grad());
      numbers.numeric.push_back(numeric);
    }
    return numbers;
  }

 private:
  // Forward and backward; false where there is nothing to go back through.
  bool compute() {
    const EnableGrad enable_grad;
    const Variable y = f_(inputs_);
    output_ = y.data();
    y_ = output_.to_vector();
    RandomStream random(options_.seed, Purpose::gradcheck, 1);
    const Tensor cotangent = random_normal(random, y.shape());
    cotangent_ = cotangent.to_vector();
    if (y.requires_grad()) y.backward(cotangent.to(output_.device()));
    return y.requires_grad();
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
    for (const int64_t i : elements_to_check(input, analytic)) {
      const std::optional<Difference> difference = central_difference(input, i);
      if (!difference || hidden(*difference, analytic[i])) {
        ++result_.left_out;
        continue;
      }
      const double numeric = difference->value;
      const double error = std::abs(analytic[i] - numeric);
      const double tolerance = difference->rounding + options_.rtol * std::abs(numeric);
      ++result_.elements;
      largest = std::max(largest, std::abs(numeric));
      if (error > result_.max_error) {
        result_.max_error = error;
        result_.max_error_input = input;
        result_.max_error_shape = x.shape();
        result_.max_error_element = i;
      }
      if (!(error <= tolerance)) {
        result_.failure = detail::concatenate("input ", input, " ", x.shape().to_string(), " at ",
                                              i, ": analytic ", analytic[i], ", numeric ", numeric,
                                              ", tolerance ", tolerance);
        return;
      }
    }
    if (!(largest >= options_.vacuous_below) && !options_.unchosen_inputs) {
      result_.failure =
          detail::concatenate("input ", input, " ", x.shape().to_string(),
                              ": vacuous, no numeric gradient above ", options_.vacuous_below);
    }
  }

  // Does rounding leave nothing to see of an unchosen input's gradient?
  bool hidden(const Difference& difference, double analytic) const {
    const double seen = std::max(magnitude(analytic), magnitude(difference.value));
    return options_.unchosen_inputs && difference.rounding > seen / 10;
  }

  std::vector<int64_t> elements_to_check(size_t input, const std::vector<double>& analytic) const {
    const int64_t n = static_cast<int64_t>(analytic.size()), count = options_.max_elements;
    std::vector<int64_t> elements(analytic.size());
    std::iota(elements.begin(), elements.end(), 0);
    if (count <= 0 || n <= count) return elements;
    const int64_t largest = (count + 1) / 2;
    std::nth_element(
        elements.begin(), elements.begin() + largest, elements.end(),
        [&](int64_t a, int64_t b) { return magnitude(analytic[a]) > magnitude(analytic[b]); });
    RandomStream random(options_.seed, Purpose::gradcheck, 2, static_cast<uint32_t>(input));
    for (int64_t i = largest; i < count; ++i)
      std::swap(elements[i], elements[i + random.below(n - i)]);
    elements.resize(static_cast<size_t>(count));
    return elements;
  }

  // Nothing at a kink of an unchosen input, or where h is too little to move it.
  std::optional<Difference> central_difference(size_t input, int64_t element) const {
    const double x = numbers_[input].data<double>()[element];
    const double high = x + steps_[input], low = x - steps_[input];  // by h as rounding leaves it
    if (!(low < x && x < high)) return std::nullopt;
    const std::vector<double> above = result_with(input, element, high);
    const std::vector<double> below = result_with(input, element, low);
    write(input, element, x);
    Difference difference{weighted_difference(cotangent_, above, below) / (high - low),
                          options_.atol};
    if (options_.unchosen_inputs) {
      difference.rounding = rounding_of_difference(cotangent_, above, below) / (high - low);
      const double right = weighted_difference(cotangent_, above, y_) / (high - x);
      const double left = weighted_difference(cotangent_, y_, below) / (x - low);
      const double largest = std::max(std::abs(right), std::abs(left));
      if (std::abs(right - left) > 1e-3 * largest + 4 * difference.rounding) return std::nullopt;
    }
    return difference;
  }

  std::vector<double> result_with(size_t input, int64_t element, double value) const {
    const NoGrad no_grad;
    write(input, element, value);
    return f_(inputs_).data().to_vector();
  }

  void write(size_t input, int64_t element, double value) const {
    numbers_[input].data<double>()[element] = value;
    inputs_[input].data().copy_from(numbers_[input]);
  }

  const DifferentiableFunction& f_;
  const GradcheckOptions& options_;
  std::vector<Variable> inputs_;
  std::vector<Tensor> numbers_;  // the inputs in the host's memory: the same, or a copy
  std::vector<double> steps_;    // h, of each
  Tensor output_;
  std::vector<double> y_, cotangent_;
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

GradcheckNumbers gradcheck_numbers(const DifferentiableFunction& f,
                                   const std::vector<Tensor>& inputs,
                                   const GradcheckOptions& options) {
  return Checker(f, inputs, options).numbers();
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

GradcheckInstance draw_case(const RegisteredCase& registered, uint64_t seed, int draw) {
  RandomStream random(seed, Purpose::gradcheck, 0, static_cast<uint32_t>(draw));
  return registered.draw(random);
}

GradcheckOptions options_of_draw(uint64_t seed, int draw) {
  GradcheckOptions options;
  options.seed = seed + static_cast<uint64_t>(draw);
  return options;
}

GradcheckResult check_case(const RegisteredCase& registered, int count, uint64_t seed,
                           Device device) {
  GradcheckResult total;
  for (int draw = 0; draw < count; ++draw) {
    GradcheckInstance instance = draw_case(registered, seed, draw);
    for (Tensor& input : instance.inputs) input = input.to(device);
    const GradcheckResult result =
        gradcheck(instance.function, instance.inputs, options_of_draw(seed, draw));
    const int64_t elements = total.elements + result.elements;
    if (result.max_error > total.max_error || draw == 0) {
      total = result;
      total.max_error_draw = draw;
    }
    total.elements = elements;
    if (!result.passed) {
      total.failure = detail::concatenate(registered.op, ", draw ", draw, ": ", result.failure);
      total.passed = false;
      return total;
    }
  }
  total.passed = count > 0;
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
