// The graph: what backward visits, in which order, how often, and what it refuses.
#include <gtest/gtest.h>

#include "autograd/ops/linear.h"
#include "autograd/ops/pointwise.h"
#include "autograd/ops/rows.h"
#include "autograd/variable.h"

namespace mocograd {
namespace {

Variable leaf(const std::vector<double>& values) {
  return Variable(
      Tensor::from(values, {static_cast<int64_t>(values.size())}, {.dtype = DType::f64}), true);
}

std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return std::string(error.what()) + "\n" + error.context();
  }
  return "no error";
}

TEST(Autograd, ChainRule) {
  const Variable x = leaf({2, -3}), y = leaf({5, 7});
  sum(multiply(relu(x), y)).backward();
  EXPECT_EQ(x.grad().to_vector(), (std::vector<double>{5, 0}));
  EXPECT_EQ(y.grad().to_vector(), (std::vector<double>{2, 0}));
}

TEST(Autograd, SharedNodeIsVisitedOnceWithItsWholeGradient) {
  const Variable x = leaf({3});
  int visits = 0;
  const Variable square = multiply(x, x);
  const Variable counted =
      make_result("counted", square.data(), {square}, [&](const Tensor& dy, InputGradients& dx) {
        ++visits;
        dx.add(0, dy);
      });
  sum(add(multiply(counted, counted), add(counted, counted))).backward();  // x⁴ + 2x²
  EXPECT_EQ(visits, 1);
  EXPECT_DOUBLE_EQ(x.grad().item(), 4 * 27 + 4 * 3);
}

TEST(Autograd, OneTensorGivenToTwoInputsIsNotSummedInPlace) {
  // add hands the same dy to both inputs; a then receives a second gradient.
  const Variable a = leaf({1}), b = leaf({1});
  sum(add(add(a, b), a)).backward();
  EXPECT_EQ(a.grad().item(), 2);
  EXPECT_EQ(b.grad().item(), 1);
}

TEST(Autograd, GradientsAccumulateUntilZeroed) {
  Variable x = leaf({1, 2});
  sum(x).backward();
  sum(scale(x, 3)).backward();
  EXPECT_EQ(x.grad().to_vector(), (std::vector<double>{4, 4}));
  x.zero_grad();
  EXPECT_FALSE(x.grad().defined());
}

TEST(Autograd, SecondBackwardIsRefused) {
  const Variable x = leaf({2});
  const Variable y = sum(multiply(x, x));
  y.backward();
  EXPECT_NE(error_of([&] { y.backward(); }).find("already used by a backward"), std::string::npos);
  EXPECT_EQ(x.grad().item(), 4) << "the refused backward changed the gradient";
}

TEST(Autograd, SecondBackwardThroughASharedPartIsRefusedBeforeItChangesAnything) {
  const Variable x = leaf({2});
  const Variable shared = multiply(x, x);
  const Variable first = sum(shared), second = sum(scale(shared, 2));
  first.backward();
  EXPECT_NE(error_of([&] { second.backward(); }).find("multiply was already used"),
            std::string::npos);
  EXPECT_EQ(x.grad().item(), 4);
}

TEST(Autograd, SavedTensorsAreFreedOnTheWay) {
  const Variable x = leaf({2});
  auto witness = std::make_shared<int>(0);
  const Variable y = make_result(
      "witness", x.data(), {x}, [witness](const Tensor& dy, InputGradients& dx) { dx.add(0, dy); });
  EXPECT_EQ(witness.use_count(), 2);
  sum(y).backward();
  EXPECT_EQ(witness.use_count(), 1);
}

TEST(Autograd, ALongChainExhaustsNoStack) {
  constexpr int kLength = 1'000'000;
  const Variable x = leaf({1});
  {
    Variable y = x;
    const BackwardFunction pass = [](const Tensor& dy, InputGradients& dx) { dx.add(0, dy); };
    for (int i = 0; i < kLength; ++i) y = make_result("identity", y.data(), {y}, pass);
    sum(y).backward();
    EXPECT_EQ(x.grad().item(), 1);
    for (int i = 0; i < kLength; ++i) y = make_result("identity", y.data(), {y}, pass);
  }  // the second graph dies here, unused
}

TEST(Autograd, ConstantsAndNoGradRecordNothing) {
  const Variable x = leaf({1}), constant(Tensor::full({1}, 4, {.dtype = DType::f64}));
  EXPECT_FALSE(add(constant, constant).requires_grad());
  EXPECT_FALSE(multiply(x, x).detach().requires_grad());
  {
    const NoGrad outer;
    { const NoGrad inner; }
    EXPECT_FALSE(multiply(x, x).requires_grad());
  }
  const Variable y = sum(multiply(x, constant));
  EXPECT_TRUE(y.requires_grad());
  y.backward();
  EXPECT_EQ(x.grad().item(), 4);
  EXPECT_FALSE(constant.grad().defined());
}

TEST(Autograd, ConstantInputsCostNoGradientKernel) {
  const Variable q(Tensor::full({2, 3}, 1, {.dtype = DType::f64}), true);
  const Variable queue(Tensor::full({5, 3}, 1, {.dtype = DType::f64}));
  const Variable y = matmul_transposed(q, queue);
  EXPECT_EQ(y.node()->inputs[1], nullptr);
  sum(y).backward();
  EXPECT_EQ(q.grad().to_vector(), std::vector<double>(6, 5.0));
}

TEST(Autograd, ErrorsNameTheOperationTheShapesAndTheModule) {
  const Variable a = leaf({1, 2}), b = leaf({1, 2, 3});
  const ModuleScope encoder("encoder_q"), layer("layer1");
  const std::string text = error_of([&] { add(a, b); });
  EXPECT_NE(text.find("add: a and b differ: a f64 [2], b f64 [3]"), std::string::npos) << text;
  EXPECT_NE(text.find("in encoder_q.layer1 (src/autograd/ops/pointwise.cpp:"), std::string::npos)
      << text;
  EXPECT_NE(error_of([&] { a.backward(); }).find("needs a scalar"), std::string::npos);
  EXPECT_NE(error_of([&] { row_dot(a, a); }).find("row_dot"), std::string::npos);
  EXPECT_NE(error_of([&] {
              Variable(Tensor::zeros({2}, {.dtype = DType::i64}), true);
            }).find("only f32 and f64"),
            std::string::npos);
}

TEST(Autograd, AGradientOfTheWrongShapeIsAnError) {
  const Variable x = leaf({1, 2});
  const Variable y = make_result("wrong", Tensor::full({}, 1, {.dtype = DType::f64}), {x},
                                 [](const Tensor& dy, InputGradients& dx) { dx.add(0, dy); });
  EXPECT_NE(error_of([&] { y.backward(); }).find("backward of wrong: gradient [] for input 0"),
            std::string::npos);
}

}  // namespace
}  // namespace mocograd
