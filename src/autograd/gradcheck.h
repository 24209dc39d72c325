// Gradcheck: is the gradient that backward computes the derivative of what forward computes?
//
// In double, for every element x_i of every input, with a fixed random cotangent c:
//   L(x) = ⟨c, f(x)⟩
//   numeric_i  = (L(x + h·e_i) − L(x − h·e_i)) / 2h          central difference, h = 1e-6
//   analytic   = f(x).backward(c)
// It passes when |analytic_i − numeric_i| <= atol + rtol·|numeric_i| everywhere; a NaN fails. Why a
// random c: the sum of a softmax or of a batch norm is constant, its gradient zero, and a check of
// it proves nothing. For the same reason a check whose numeric gradient is nearly zero for a whole
// input is a failure, not a pass.
//
// Of an input with more than max_elements so many are compared: half of them those with the largest
// |analytic|, which tell most, the others at random, which also see what should not be zero.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "autograd/variable.h"
#include "tensor/random.h"

namespace mocograd {

struct GradcheckOptions {
  double step = 1e-6;
  double rtol = 1e-5;
  double atol = 1e-7;
  double vacuous_below = 1e-5;  // least |numeric| that an input must show somewhere
  uint64_t seed = 0;            // of the cotangent, and of the elements taken
  int64_t max_elements = 0;     // compared of each input, 0: all
  // The inputs are what they are, nobody chose them for a check (debug/live_check.h). Then
  //   - h is in units of the input's standard deviation;
  //   - in place of atol stands what rounding makes of a difference: 2⁻⁴⁴ Σ_j |c_j y_j| / h, over the
  //     y_j that moved;
  //   - elements are left out that lie within h of a kink, where the differences on the right and on
  //     the left part by more than a thousandth, and those of which rounding leaves nothing to see;
  //   - an input whose gradients are all nearly zero proves nothing, and is no failure.
  bool unchosen_inputs = false;
};

struct GradcheckResult {
  bool passed = false;
  double max_error = 0;  // largest |analytic − numeric|
  size_t max_error_input = 0;
  Shape max_error_shape;          // of that input
  int64_t max_error_element = 0;  // where in it, row-major
  int max_error_draw = 0;         // of check_case
  int64_t elements = 0;           // how many were compared
  int64_t left_out = 0;           // of unchosen inputs
  std::string failure;            // empty, or input, index, analytic, numeric, tolerance
};

// inputs: f64, all of them checked, within NoGrad too; f computes on their device. Requires: f is
// differentiable near them; keep them off kinks by more than h, or say that they are unchosen.
GradcheckResult gradcheck(const DifferentiableFunction& f, const std::vector<Tensor>& inputs,
                          const GradcheckOptions& options = {});

// All numbers of a check, for people to read and for other programs to compare with.
struct GradcheckNumbers {
  std::vector<Tensor> inputs;
  Tensor output, cotangent;      // f(inputs), c
  std::vector<Tensor> analytic;  // of each input; undefined where no gradient arrived
  std::vector<Tensor> numeric;   // likewise
};
GradcheckNumbers gradcheck_numbers(const DifferentiableFunction& f,
                                   const std::vector<Tensor>& inputs,
                                   const GradcheckOptions& options = {});

// One instance of an operation to check: inputs of a random small shape, and what to do with them.
struct GradcheckInstance {
  std::vector<Tensor> inputs;
  DifferentiableFunction function;
  std::map<std::string, Tensor> constants = {};  // its other arguments by name, for who reads along
};

// Every operation's file registers how to draw instances of it:
//   const GradcheckCase relu_case("relu", [](RandomStream& random) -> GradcheckInstance {…});
struct GradcheckCase {
  using Draw = std::function<GradcheckInstance(RandomStream& random)>;
  GradcheckCase(const char* op, Draw draw);
};

struct RegisteredCase {
  std::string op;
  GradcheckCase::Draw draw;
};
const std::vector<RegisteredCase>& gradcheck_cases();  // sorted by name

// The same instance for the same seed and draw, and how check_case checks it.
GradcheckInstance draw_case(const RegisteredCase& registered, uint64_t seed, int draw);
GradcheckOptions options_of_draw(uint64_t seed, int draw);

// Checks `count` random instances of a case on a device; stops at the first failure, which then tells
// the draw.
GradcheckResult check_case(const RegisteredCase& registered, int count, uint64_t seed = 0,
                           Device device = Device::cpu);

// For drawing instances. Normal numbers; and numbers whose distance from zero is at least `gap`.
Tensor random_normal(RandomStream& random, const Shape& shape);
Tensor random_off_zero(RandomStream& random, const Shape& shape, double gap = 0.1);

}  // namespace mocograd
