// The graph: what backward visits, in which order, how often, and what it refuses.
#include <gtest/gtest.h>

#include "autograd/ops/batch_norm.h"
#include "autograd/ops/conv2d.h"
#include "autograd/ops/cross_entropy.h"
#include "autograd/ops/linear.h"
#include "autograd/ops/pointwise.h"
#include "autograd/ops/pool.h"
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

TEST(Autograd, ABackwardThatThrewLeavesNothingBehind) {
  const Variable x = leaf({1});
  const Variable h = scale(x, 3);
  const Variable failing = make_result("failing", h.data(), {h},
                                       [](const Tensor&, InputGradients&) { throw Error("no"); });
  EXPECT_THROW(sum(add(failing, scale(h, 5))).backward(), Error);
  sum(scale(h, 1)).backward();
  EXPECT_EQ(x.grad().item(), 3);
}

TEST(Autograd, ALeafsOwnBackwardAddsToo) {
  const Variable x = leaf({1});
  x.backward();
  x.backward(Tensor::full({1}, 10, {.dtype = DType::f64}));
  EXPECT_EQ(x.grad().item(), 11);
  EXPECT_THROW(x.backward(Tensor()), Error);
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
  EXPECT_NE(error_of([&] {
              y.backward();
            }).find("backward of wrong: gradient f64 [] for input 0, f64 [2]"),
            std::string::npos);
}

TEST(Autograd, AGradientHasItsInputsDtype) {
  const Variable x(Tensor::from({1, 2}, {2}), true);
  convert(relu(convert(x, DType::bf16)), DType::f32).backward(Tensor::from({3, 4}, {2}));
  EXPECT_EQ(x.grad().dtype(), DType::f32);
  EXPECT_EQ(x.grad().to_vector(), (std::vector<double>{3, 4}));

  const Variable y = make_result("wrong", x.data(), {x}, [](const Tensor& dy, InputGradients& dx) {
    dx.add(0, dy.to(DType::bf16));
  });
  EXPECT_NE(error_of([&] {
              y.backward(x.data());
            }).find("backward of wrong: gradient bf16 [2] for input 0, f32 [2]"),
            std::string::npos);
}

// Each operation takes the dtypes that its kernels do, and no others.
TEST(Autograd, OperationsRefuseTheDtypesThatTheyLackKernelsFor) {
  const auto of = [](const Shape& shape, DType dtype) {
    return Variable(Tensor::full(shape, 1, {.dtype = dtype}));
  };
  const DType bf16 = DType::bf16, i64 = DType::i64;
  const Variable matrix = of({2, 3}, bf16), image = of({1, 2, 2, 3}, i64);
  const Tensor labels = Tensor::zeros({2}, {.dtype = i64});
  for (const auto& [call, text] : std::vector<std::pair<std::function<void()>, std::string>>{
           {[&] { multiply(matrix, matrix); }, "multiply: needs f32 or f64, got bf16 [2, 3]"},
           {[&] { scale(matrix, 2); }, "scale: needs f32 or f64, got bf16 [2, 3]"},
           {[&] { convert(Variable(), DType::f64); }, "convert: needs f32, f64 or bf16, got"},
           {[&] { convert(of({2}, DType::f32), i64); }, "convert: needs f32, f64 or bf16, got i64"},
           {[&] {
              concat_columns(of({2, 3}, i64), of({2, 3}, i64));
            },
            "concat_columns: needs f32 or f64, got i64 [2, 3]"},
           {[&] { sum(matrix); }, "sum: needs f32 or f64, got bf16 [2, 3]"},
           {[&] { matmul_transposed(matrix, matrix); }, "matmul_transposed: needs f32 or f64, got"},
           {[&] { linear(matrix, matrix, of({2}, bf16)); }, "linear: needs f32 or f64, got bf16"},
           {[&] {
              linear(of({2, 3}, DType::f32), of({2, 3}, DType::f32), of({2}, bf16));
            },
            "linear: the bias must have one number for each row of w, of its dtype: b bf16 [2]"},
           {[&] { l2_normalize(matrix); }, "l2_normalize: needs f32 or f64, got bf16 [2, 3]"},
           {[&] { row_dot(matrix, matrix); }, "row_dot: needs f32 or f64, got bf16 [2, 3]"},
           {[&] { cross_entropy(matrix, labels); }, "cross_entropy: needs f32 or f64, got bf16"},
           {[&] { add(image, image); }, "add: needs f32, f64 or bf16, got i64 [1, 2, 2, 3]"},
           {[&] { relu(image); }, "relu: needs f32, f64 or bf16, got i64 [1, 2, 2, 3]"},
           {[&] { max_pool(image); }, "max_pool: needs f32, f64 or bf16, got i64 [1, 2, 2, 3]"},
           {[&] { global_avg_pool(image); }, "global_avg_pool: needs f32, f64 or bf16, got i64"},
           {[&] {
              conv2d(image, of({1, 1, 3, 2}, i64), {});
            },
            "conv2d: needs f32, f64 or bf16, got i64 [1, 2, 2, 3]"}}) {
    EXPECT_EQ(error_of(call).rfind(text, 0), 0u) << error_of(call);
    EXPECT_NE(error_of(call).find("(src/autograd/ops/"), std::string::npos) << error_of(call);
  }
}

TEST(Autograd, BatchNormRefusesNoChannels) {
  const Tensor none = Tensor::zeros({0}), statistics = Tensor::zeros({1, 0});
  EXPECT_NE(error_of([&] {
              batch_norm(Variable(Tensor::zeros({2, 4, 0})), Variable(none), Variable(none), {},
                         {statistics, statistics});
            }).find("batch_norm: x f32 [2, 4, 0] has no channels"),
            std::string::npos);
}

TEST(Autograd, BatchNormRefusesParametersAndStatisticsOfAnotherDtype) {
  const auto of = [](const Shape& shape, DType dtype) {
    return Tensor::full(shape, 1, {.dtype = dtype});
  };
  const DType f32 = DType::f32, f64 = DType::f64, bf16 = DType::bf16;
  const auto error_with = [&](DType x, DType gamma, DType beta, DType mean, DType var) {
    return error_of([&] {
      batch_norm(Variable(of({4, 3}, x)), Variable(of({3}, gamma)), Variable(of({3}, beta)), {},
                 {of({1, 3}, mean), of({1, 3}, var)});
    });
  };
  EXPECT_EQ(error_with(f32, f32, f32, f32, f32), "no error");
  EXPECT_EQ(error_with(bf16, f32, f32, f32, f32), "no error");
  const auto expect_refused = [](const std::string& error, const std::string& text) {
    EXPECT_EQ(error.rfind("batch_norm: for x " + text, 0), 0u) << error;
  };
  expect_refused(error_with(bf16, bf16, f32, f32, f32),
                 "bf16 [4, 3] gamma, beta, mean and var must be f32, they are bf16, f32, f32 and "
                 "f32");
  expect_refused(error_with(f32, f32, bf16, f32, f32), "f32 [4, 3] gamma, beta, mean and var");
  expect_refused(
      error_with(f64, f64, f64, f32, f64),
      "f64 [4, 3] gamma, beta, mean and var must be f64, they are f64, f64, f32 and f64");
  expect_refused(error_with(f32, f32, f32, f32, bf16), "f32 [4, 3] gamma, beta, mean and var");

  const Variable gamma(of({3}, f32));
  const BatchNormStatistics statistics{of({1, 3}, f32), of({1, 3}, f32)};
  const auto add_residual = [&] {
    batch_norm_add_relu(Variable(of({4, 3}, bf16)), Variable(of({4, 3}, f32)), gamma, gamma, {},
                        statistics);
  };
  EXPECT_EQ(
      error_of(add_residual).rfind("batch_norm_add_relu: residual f32 [4, 3] for x bf16 [4, 3]", 0),
      0u)
      << error_of(add_residual);
}

}  // namespace
}  // namespace mocograd
