// The gradient of every operation, and gradcheck itself: a backward that is negated, zeroed, or
// lacks a term must turn it red, for every operation and every input.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <regex>
#include <set>

#include "autograd/gradcheck.h"
#include "autograd/ops/linear.h"
#include "autograd/ops/pointwise.h"
#include "autograd/ops/rows.h"
#include "tensor/backend.h"

namespace mocograd {
namespace {

constexpr int kDraws = 200;

class EveryOperation : public testing::TestWithParam<RegisteredCase> {};

TEST_P(EveryOperation, AgreesWithCentralDifferences) {
  const GradcheckResult result = check_case(GetParam(), kDraws);
  EXPECT_TRUE(result.passed) << result.failure;
  EXPECT_GE(result.elements, kDraws);
}

// The same numbers; `damage` acts on the gradient that passes through.
Variable damaged(const Variable& x, const std::function<void(const Tensor&)>& damage) {
  return make_result("damaged", x.data(), {x}, [damage](const Tensor& dy, InputGradients& dx) {
    const Tensor copy = dy.clone();
    damage(copy);
    dx.add(0, copy);
  });
}

// How many of the first draws gradcheck passes when the gradient of `input` is damaged.
int passes_with_damaged_input(const RegisteredCase& registered, size_t input,
                              const std::function<void(const Tensor&)>& damage) {
  int passed = 0;
  for (uint32_t draw = 0; draw < 10; ++draw) {
    RandomStream random(0, Purpose::gradcheck, 0, draw);
    const GradcheckInstance instance = registered.draw(random);
    if (input >= instance.inputs.size()) return -1;
    const auto f = [&](std::vector<Variable> in) {
      in[input] = damaged(in[input], damage);
      return instance.function(in);
    };
    passed += gradcheck(f, instance.inputs).passed;
  }
  return passed;
}

TEST_P(EveryOperation, NegatedBackwardIsCaughtForEveryInput) {
  for (size_t input = 0;; ++input) {
    const int passed = passes_with_damaged_input(
        GetParam(), input, [](const Tensor& g) { g.backend().scale(g.clone(), -1, g); });
    if (passed < 0) break;
    EXPECT_EQ(passed, 0) << "input " << input;
  }
}

TEST_P(EveryOperation, ZeroedBackwardIsCaughtForEveryInput) {
  for (size_t input = 0;; ++input) {
    const int passed =
        passes_with_damaged_input(GetParam(), input, [](const Tensor& g) { g.fill(0); });
    if (passed < 0) break;
    EXPECT_EQ(passed, 0) << "input " << input;
  }
}

// The gradient is the sum over the elements of y of dy_i · ∂y_i/∂x. Each term is left out in turn;
// those that are not zero (most of them, at least one in every draw) must be missed.
TEST_P(EveryOperation, DroppedTermIsCaught) {
  int caught = 0;
  for (uint32_t draw = 0; draw < 10; ++draw) {
    RandomStream random(0, Purpose::gradcheck, 0, draw);
    const GradcheckInstance instance = GetParam().draw(random);
    const int64_t terms = [&] {
      std::vector<Variable> inputs;
      for (const Tensor& input : instance.inputs) inputs.emplace_back(input);
      return instance.function(inputs).data().numel();
    }();
    for (int64_t term = 0; term < terms; ++term) {
      const auto f = [&](const std::vector<Variable>& in) {
        return damaged(instance.function(in),
                       [term](const Tensor& g) { g.data<double>()[term] = 0; });
      };
      caught += !gradcheck(f, instance.inputs).passed;
    }
  }
  EXPECT_GE(caught, 10);
}

INSTANTIATE_TEST_SUITE_P(, EveryOperation, testing::ValuesIn(gradcheck_cases()),
                         [](const auto& info) { return info.param.op; });

// An operation is what calls make_result("name", …) or hands its name to a shared implementation.
TEST(Gradcheck, EveryOperationInTheSourcesHasACase) {
  const std::filesystem::path folder = "src/autograd/ops";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "run from the repository's root";
  std::set<std::string> cases, operations;
  for (const RegisteredCase& registered : gradcheck_cases()) cases.insert(registered.op);
  const std::regex declaration(R"(\nVariable (\w+)\()");
  for (const auto& file : std::filesystem::directory_iterator(folder)) {
    if (file.path().extension() != ".h") continue;
    std::ifstream stream(file.path());
    const std::string text((std::istreambuf_iterator<char>(stream)), {});
    for (std::sregex_iterator it(text.begin(), text.end(), declaration), end; it != end; ++it)
      operations.insert((*it)[1]);
  }
  EXPECT_GE(operations.size(), 18u);
  EXPECT_EQ(operations, cases);
}

Tensor numbers(const std::vector<double>& values) {
  return Tensor::from(values, {static_cast<int64_t>(values.size())}, {.dtype = DType::f64});
}

TEST(Gradcheck, NaNFails) {
  const auto f = [](const std::vector<Variable>& in) {
    return damaged(in[0], [](const Tensor& g) {
      g.data<double>()[0] = std::numeric_limits<double>::quiet_NaN();
    });
  };
  const GradcheckResult result = gradcheck(f, {numbers({1, 2})});
  EXPECT_FALSE(result.passed);
  EXPECT_NE(result.failure.find("analytic nan"), std::string::npos) << result.failure;
}

TEST(Gradcheck, VacuousCaseFails) {
  // The norm of a normalised row does not depend on the row: right, and no evidence of anything.
  const auto f = [](const std::vector<Variable>& in) {
    const Variable y = l2_normalize(in[0]);
    return row_dot(y, y);
  };
  const GradcheckResult result =
      gradcheck(f, {Tensor::from({1, 2, 3, 4}, {2, 2}, {.dtype = DType::f64})});
  EXPECT_FALSE(result.passed);
  EXPECT_NE(result.failure.find("vacuous"), std::string::npos) << result.failure;
}

TEST(Gradcheck, MissingGradientFails) {
  const auto f = [](const std::vector<Variable>& in) {
    return make_result("forgets", add(in[0], in[1]).data(), {in[0], in[1]},
                       [](const Tensor& dy, InputGradients& dx) { dx.add(0, dy); });
  };
  EXPECT_NE(gradcheck(f, {numbers({1}), numbers({2})}).failure.find("input 1: no gradient arrived"),
            std::string::npos);
  const auto constant = [](const std::vector<Variable>& in) { return in[0].detach(); };
  EXPECT_FALSE(gradcheck(constant, {numbers({1})}).passed);
}

TEST(Gradcheck, SmallRelativeErrorFails) {
  const auto f = [](const std::vector<Variable>& in) {
    return damaged(in[0], [](const Tensor& g) { g.data<double>()[1] *= 1 + 1e-4; });
  };
  const GradcheckResult result = gradcheck(f, {numbers({1, 2})});
  EXPECT_FALSE(result.passed);
  EXPECT_NE(result.failure.find("input 0 [2] at 1: analytic"), std::string::npos) << result.failure;
}

// Of 1000 elements 20 are compared: those of the largest gradient, and some of the others.
TEST(Gradcheck, SamplesLargeInputs) {
  RandomStream random(1, Purpose::test);
  const Tensor x = random_normal(random, {1000});
  GradcheckOptions options;
  options.max_elements = 20;
  const GradcheckResult result =
      gradcheck([](const auto& in) { return relu(in[0]); }, {x}, options);
  EXPECT_TRUE(result.passed) << result.failure;
  EXPECT_EQ(result.elements, 20);

  const auto one_wrong = [](const std::vector<Variable>& in) {
    return damaged(in[0], [](const Tensor& g) { g.data<double>()[517] = 1000; });
  };
  EXPECT_FALSE(gradcheck(one_wrong, {x}, options).passed);
  const auto none_at_all = [](const std::vector<Variable>& in) {
    return damaged(in[0], [](const Tensor& g) { g.fill(0); });
  };
  EXPECT_FALSE(gradcheck(none_at_all, {x}, options).passed);
}

TEST(Gradcheck, LeavesOutKinksOfUnchosenInputs) {
  const auto f = [](const std::vector<Variable>& in) { return relu(in[0]); };
  GradcheckOptions options;
  EXPECT_FALSE(gradcheck(f, {numbers({0, 1, -1})}, options).passed);
  options.unchosen_inputs = true;
  const GradcheckResult result = gradcheck(f, {numbers({0, 1, -1})}, options);
  EXPECT_TRUE(result.passed) << result.failure;
  EXPECT_EQ(result.left_out, 1);
  EXPECT_EQ(result.elements, 2);
  // Kinks alone prove nothing; and what is wrong beside them is seen.
  EXPECT_EQ(gradcheck(f, {numbers({0, 0})}, options).elements, 0);
  const auto negated = [](const std::vector<Variable>& in) {
    return damaged(relu(in[0]), [](const Tensor& g) { g.backend().scale(g.clone(), -1, g); });
  };
  EXPECT_FALSE(gradcheck(negated, {numbers({0, 1, -1})}, options).passed);
}

// A right backward passes whatever the scale of its inputs, a wrong one fails.
TEST(Gradcheck, UnchosenInputsOfAnyScale) {
  GradcheckOptions options;
  options.unchosen_inputs = true;
  RandomStream random(1, Purpose::test);
  const Tensor x = random_normal(random, {4, 6}), w = random_normal(random, {5, 6});
  const auto scaled = [](const Tensor& tensor, double factor) {
    const Tensor result = Tensor::empty_like(tensor);
    tensor.backend().scale(tensor, factor, result);
    return result;
  };
  const auto right = [](const std::vector<Variable>& in) {
    return l2_normalize(matmul_transposed(in[0], in[1]));
  };
  const auto wrong = [&](const std::vector<Variable>& in) {
    return damaged(right(in), [](const Tensor& g) { g.backend().scale(g.clone(), 1.01, g); });
  };
  for (const double a : {1e-9, 1e-3, 1.0, 1e6}) {
    for (const double b : {1e-9, 1.0, 1e6}) {
      const std::vector<Tensor> inputs = {scaled(x, a), scaled(w, b)};
      const GradcheckResult result = gradcheck(right, inputs, options);
      EXPECT_TRUE(result.passed) << a << ' ' << b << ": " << result.failure;
      EXPECT_GT(result.elements, 40) << a << ' ' << b;
      EXPECT_FALSE(gradcheck(wrong, inputs, options).passed) << a << ' ' << b;
    }
  }
}

TEST(Gradcheck, WhatRoundingHidesIsLeftOut) {
  const Variable large(Tensor::full({3}, 1e9, {.dtype = DType::f64}));
  GradcheckOptions options;
  options.unchosen_inputs = true;
  const auto f = [&](const std::vector<Variable>& in) { return add(in[0], large); };
  const GradcheckResult result = gradcheck(f, {numbers({1, 2, 3})}, options);
  EXPECT_TRUE(result.passed) << result.failure;
  EXPECT_EQ(result.left_out, 3);
}

TEST(Gradcheck, AnUnchosenInputMayMoveNothing) {
  const auto f = [](const std::vector<Variable>& in) { return relu(in[0]); };
  GradcheckOptions options;
  EXPECT_FALSE(gradcheck(f, {numbers({-1, -2})}, options).passed);
  options.unchosen_inputs = true;
  EXPECT_TRUE(gradcheck(f, {numbers({-1, -2})}, options).passed);
  const auto moves = [](const std::vector<Variable>& in) {
    return damaged(relu(in[0]), [](const Tensor& g) { g.fill(0); });
  };
  EXPECT_FALSE(gradcheck(moves, {numbers({-1, 2})}, options).passed);
}

TEST(Gradcheck, WorksWithinNoGrad) {
  const NoGrad no_grad;
  EXPECT_TRUE(gradcheck([](const auto& in) { return relu(in[0]); }, {numbers({1, 2})}).passed);
  EXPECT_FALSE(relu(Variable(numbers({1}), true)).requires_grad());  // and puts it back
}

// The numbers that are shown and written to files are those that the check compares.
TEST_P(EveryOperation, NumbersAreThoseOfTheCheck) {
  for (int draw = 0; draw < 3; ++draw) {
    const GradcheckInstance instance = draw_case(GetParam(), 0, draw);
    const GradcheckOptions options = options_of_draw(0, draw);
    const GradcheckNumbers numbers = gradcheck_numbers(instance.function, instance.inputs, options);
    const GradcheckResult result = gradcheck(instance.function, instance.inputs, options);
    std::vector<Variable> inputs;
    for (const Tensor& input : instance.inputs) inputs.emplace_back(input, true);
    const Variable y = instance.function(inputs);
    EXPECT_EQ(numbers.output.to_vector(), y.data().to_vector());
    ASSERT_EQ(numbers.cotangent.shape(), y.shape());
    y.backward(numbers.cotangent);
    double max_error = 0;
    for (size_t i = 0; i < inputs.size(); ++i) {
      EXPECT_EQ(numbers.inputs[i].to_vector(), instance.inputs[i].to_vector());
      EXPECT_EQ(numbers.analytic[i].to_vector(), inputs[i].grad().to_vector());
      const std::vector<double> a = numbers.analytic[i].to_vector();
      const std::vector<double> n = numbers.numeric[i].to_vector();
      for (size_t k = 0; k < a.size(); ++k) max_error = std::max(max_error, std::abs(a[k] - n[k]));
    }
    EXPECT_EQ(max_error, result.max_error);
  }
}

TEST(Gradcheck, TellsWhereTheErrorIsLargest) {
  const auto f = [](const std::vector<Variable>& in) {
    return add(in[0], damaged(in[1], [](const Tensor& g) { g.data<double>()[2] += 0.5; }));
  };
  const GradcheckResult result = gradcheck(f, {numbers({1, 2, 3}), numbers({4, 5, 6})});
  EXPECT_EQ(result.max_error_input, 1u);
  EXPECT_EQ(result.max_error_element, 2);
  EXPECT_EQ(result.max_error_shape, Shape({3}));
  EXPECT_NEAR(result.max_error, 0.5, 1e-6);
}

// Of all draws: here the third is wrong by a little, and checking stops there.
TEST(Gradcheck, TellsTheDrawOfTheLargestError) {
  int drawn = 0;
  const RegisteredCase registered{
      "test", [&](RandomStream& random) -> GradcheckInstance {
        const double wrong = drawn++ == 2 ? 0.25 : 0;
        return {{random_normal(random, {4})}, [wrong](const std::vector<Variable>& in) {
                  return damaged(in[0], [wrong](const Tensor& g) { g.data<double>()[1] += wrong; });
                }};
      }};
  const GradcheckResult result = check_case(registered, 5);
  EXPECT_FALSE(result.passed);
  EXPECT_EQ(result.max_error_draw, 2);
  EXPECT_EQ(result.max_error_element, 1);
  EXPECT_EQ(result.elements, 4 + 4 + 2);
  EXPECT_EQ(result.failure.rfind("test, draw 2: input 0 [4] at 1: analytic", 0), 0u)
      << result.failure;
}

TEST(Gradcheck, RefusesSinglePrecision) {
  const auto f = [](const std::vector<Variable>& in) { return in[0]; };
  EXPECT_THROW(gradcheck(f, {Tensor::full({1}, 1)}), Error);
}

}  // namespace
}  // namespace mocograd
