// Conv2d and BatchNorm2d, and what they fuse.
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "autograd/observer.h"
#include "autograd/ops/conv2d.h"
#include "autograd/ops/pointwise.h"
#include "nn/layers.h"
#include "nn_tensors.h"

namespace mocograd {
namespace {

// In bf16 a relu is fused to the bit. A convolution after it sums the gradient in another order:
// there x's may be rounded to the next number. A residual the fused form adds to z = batch_norm(x)
// before z is rounded, the unfused after, and both round their sum y.
// |y − y'| <= 2⁻⁸·(|z| + |y| + |y'|), and equal gradients, where no rounding moves a sum past zero.
class FusedInBf16 : public testing::Test {
 protected:
  using Operation = std::function<Variable(const Variable& x, const Variable& residual)>;

  FusedInBf16() {
    std::vector<double> far(static_cast<size_t>(kShape.numel()));  // from every −z
    for (size_t i = 0; i < far.size(); ++i)
      far[i] = (i % 2 ? 8 : -8) + 0.3 * residual_.to_vector()[i];
    residual_ = Tensor::from(far, kShape);
  }
  ~FusedInBf16() override { use_fused_operations(true); }

  // The result, then the gradients of x, the residual, batch norm's parameters and the convolution's.
  std::vector<Tensor> once(bool fused, const Operation& operation) {
    use_fused_operations(fused);
    const Variable x(x_, true), residual(residual_, true);
    std::vector<Variable*> parameters;
    for (const Module* module : std::initializer_list<Module*>{&bn_, &conv_}) {
      for (const NamedParameter& parameter : module->named_parameters())
        parameters.push_back(parameter.variable);
    }
    for (Variable* parameter : parameters) parameter->zero_grad();
    const Variable y = operation(convert(x, DType::bf16), convert(residual, DType::bf16));
    y.backward(dy_.to(DType::bf16));
    std::vector<Tensor> results = {y.data(), x.grad(), residual.grad()};
    for (const Variable* parameter : parameters) results.push_back(parameter->grad());
    return results;
  }

  static void expect_equal(const std::vector<Tensor>& a, const std::vector<Tensor>& b,
                           size_t first) {
    for (size_t i = first; i < a.size(); ++i) {
      ASSERT_EQ(a[i].defined(), b[i].defined()) << i;
      if (a[i].defined()) {
        EXPECT_EQ(a[i].to_vector(), b[i].to_vector()) << i;
      }
    }
  }

  const Shape kShape{4, 4, 4, 16};
  RandomStream random_ = stream();
  BatchNorm2d bn_{16, 2}, next_{16, 2};
  Conv2d conv_{16, 16, 3, {.stride = 1, .padding = 1}, random_};
  const Tensor x_ = random_tensor(kShape, 1, {}), dy_ = random_tensor(kShape, 2, {});
  Tensor residual_ = random_tensor(kShape, 3, {});
};

TEST_F(FusedInBf16, ReluIsTheUnfused) {
  const Operation relu = [&](const Variable& x, const Variable&) { return bn_.relu(x); };
  expect_equal(once(true, relu), once(false, relu), 0);
}

TEST_F(FusedInBf16, AConvolutionIsTheUnfusedButForTheOrderOfItsSums) {
  const Operation conv = [&](const Variable& x, const Variable&) {
    return bn_.relu(x, conv_, next_).x;
  };
  const std::vector<Tensor> fused = once(true, conv), plain = once(false, conv);
  EXPECT_EQ(fused.front().to_vector(), plain.front().to_vector()) << "y";
  EXPECT_EQ(fused.back().to_vector(), plain.back().to_vector()) << "the weight's gradient";
  const std::vector<double> dx = fused[1].to_vector(), other = plain[1].to_vector();
  for (size_t i = 0; i < dx.size(); ++i)
    EXPECT_LE(std::abs(dx[i] - other[i]), 0x1p-8 * (std::abs(dx[i]) + std::abs(other[i]))) << i;
}

TEST_F(FusedInBf16, AResidualDiffersByARounding) {
  const Operation add_relu = [&](const Variable& x, const Variable& residual) {
    return bn_.add_relu(x, residual);
  };
  const std::vector<Tensor> fused = once(true, add_relu), plain = once(false, add_relu);
  const std::vector<double> z = bn_(Variable(x_.to(DType::bf16).to(DType::f32))).data().to_vector();
  const std::vector<double> y = fused[0].to_vector(), other = plain[0].to_vector();
  for (size_t i = 0; i < y.size(); ++i) {
    const double bound = 0x1p-8 * (std::abs(z[i]) + std::abs(y[i]) + std::abs(other[i]));
    EXPECT_LE(std::abs(y[i] - other[i]), bound) << i;
  }
  EXPECT_NE(y, other) << "no rounding was seen";
  expect_equal(fused, plain, 1);
}

TEST(BatchNorm2d, SplitsAreIndependentBatchNorms) {
  const Tensor x = random_tensor({6, 2, 2, 3});
  BatchNorm2d split(3, 2, kDouble), first(3, 1, kDouble), second(3, 1, kDouble);
  const Tensor y = split(Variable(x)).data();
  EXPECT_EQ(largest_difference(y.rows(0, 3), first(Variable(x.rows(0, 3))).data()), 0);
  EXPECT_EQ(largest_difference(y.rows(3, 6), second(Variable(x.rows(3, 6))).data()), 0);
  // The running buffers are the mean of the groups' updated buffers.
  const auto buffers = split.named_buffers(), a = first.named_buffers(), b = second.named_buffers();
  for (int i : {0, 1}) {
    const std::vector<double> mean = buffers[i].tensor->to_vector(),
                              left = a[i].tensor->to_vector(), right = b[i].tensor->to_vector();
    for (int c = 0; c < 3; ++c) EXPECT_NEAR(mean[c], (left[c] + right[c]) / 2, 1e-15);
  }
  EXPECT_EQ(buffers[2].tensor->item(), 1) << "one forward, whatever the number of groups";
}

TEST(BatchNorm2d, RunningVarianceIsUnbiased) {
  BatchNorm2d bn(1, 1, kDouble);
  bn(Variable(Tensor::from({1, 2, 3, 6}, {4, 1, 1, 1}, kDouble)));
  const auto buffers = bn.named_buffers();
  EXPECT_NEAR(buffers[0].tensor->item(), 0.1 * 3, 1e-15);
  EXPECT_NEAR(buffers[1].tensor->item(), 0.9 + 0.1 * 14 / 3, 1e-15);  // Σ(x − 3)² = 14, over 3
}

TEST(BatchNorm2d, EvaluationUsesAndKeepsTheRunningStatistics) {
  BatchNorm2d bn(1, 2, kDouble);
  bn(Variable(random_tensor({4, 1, 1, 1})));
  bn.eval();
  const auto buffers = bn.named_buffers();
  const double mean = buffers[0].tensor->item(), var = buffers[1].tensor->item();
  const Tensor x = random_tensor({3, 1, 1, 1}, 7);  // 2 groups do not divide it, and need not
  const std::vector<double> y = bn(Variable(x)).data().to_vector();
  for (int i = 0; i < 3; ++i)
    EXPECT_NEAR(y[i], (x.to_vector()[i] - mean) / std::sqrt(var + 1e-5), 1e-14);
  EXPECT_EQ(buffers[0].tensor->item(), mean);
  EXPECT_EQ(buffers[2].tensor->item(), 1);
}

// The graph of an evaluation keeps the statistics that it was computed with.
TEST(BatchNorm2d, TrainingBetweenAnEvaluationAndItsBackwardChangesNoGradient) {
  BatchNorm2d bn(1, 1, kDouble);
  const Variable x(random_tensor({4, 1, 1, 1}), true);
  bn.eval();
  const Variable y = sum(bn(x));
  bn.train();
  bn(x);
  y.backward();
  EXPECT_NEAR(x.grad().to_vector()[0], 1 / std::sqrt(1 + 1e-5), 1e-12);
}

TEST(BatchNorm2d, OneValueAGroupIsAnError) {
  BatchNorm2d bn(2, 2, kDouble);
  EXPECT_THROW(bn(Variable(random_tensor({2, 1, 1, 2}))), Error);
}

TEST(BatchNorm2d, NoChannelsOrGroupsAreAnError) {
  EXPECT_THROW(BatchNorm2d(0, 1, kDouble), Error);
  EXPECT_THROW(BatchNorm2d(2, 0, kDouble), Error);
}

TEST(BatchNorm2d, ReadsWhatAConvolutionTook) {
  RandomStream random = stream();
  Conv2d conv(16, 16, 3, {.stride = 1, .padding = 1}, random);
  BatchNorm2d bn(16, 2), next(16, 4);
  const Variable x(random_tensor({4, 8, 8, 16}, 1, {}));
  const BatchNormInput far = conv(x, bn);
  ASSERT_TRUE(far.statistics.taken);
  far.statistics.mean.fill(1e3);
  for (double y : bn.relu(far).data().to_vector()) ASSERT_EQ(y, 0) << "not by this mean";

  const BatchNormInput y = bn.relu(conv(x, bn), conv, next);
  EXPECT_TRUE(y.statistics.taken);
  EXPECT_EQ(y.statistics.mean.shape(), Shape({4, 16}));
  EXPECT_THROW(bn.relu(y), Error) << "taken for other groups";
  next.eval();
  EXPECT_FALSE(bn.relu(conv(x, bn), conv, next).statistics.taken);
  bn.eval();
  EXPECT_FALSE(conv(x, bn).statistics.taken);
}

TEST(Conv2d, StatisticsThatDoNotFitAreAnError) {
  const Variable x(random_tensor({4, 8, 8, 16}, 1, {})), w(random_tensor({3, 3, 16, 16}, 2, {}));
  const auto take = [&](const Tensor& mean, const Tensor& var) {
    BatchNormStatistics statistics{mean, var};
    conv2d(x, w, {.stride = 1, .padding = 1}, &statistics);
    return statistics.taken;
  };
  const Tensor good = Tensor::zeros({2, 16});
  EXPECT_TRUE(take(good, good));
  for (const Tensor& bad : {Tensor(), Tensor::zeros({3, 16}), Tensor::zeros({2, 17}),
                            Tensor::zeros({16}), Tensor::zeros({2, 16}, {.dtype = DType::f64})}) {
    EXPECT_THROW(take(bad, good), Error) << bad.describe();
    EXPECT_THROW(take(good, bad), Error) << bad.describe();
  }
}

// What arrives last is added in the pass that masks it, to the bit as where each addition is an
// operation: an observed backward.
TEST(BatchNorm2d, GradientsOfSeveralUsersAreAdded) {
  struct Onlooker : OperationObserver {
    void operation(const Operation& operation) override {
      additions += std::string(operation.op) == "accumulate";
    }
    int additions = 0;
  };
  using Form = std::function<Variable(BatchNorm2d&, const Variable& x, const Variable& residual)>;
  const std::map<std::string, Form> forms = {
      {"batch_norm", [](auto& bn, const auto& x, const auto&) { return bn(x); }},
      {"relu", [](auto& bn, const auto& x, const auto&) { return bn.relu(x); }},
      {"add_relu", [](auto& bn, const auto& x, const auto& r) { return bn.add_relu(x, r); }}};
  const Shape shape{4, 3, 3, 5};
  for (const auto& [name, form] : forms) {
    for (int variant = 0; variant < 6; ++variant) {
      const DType dtype = variant % 2 ? DType::f32 : DType::bf16;
      const uint32_t users = 1 + variant / 2;
      const auto gradients = [&](OperationObserver* onlooker) {
        BatchNorm2d bn(5, 2);
        const Variable x(random_tensor(shape, 1, {}), true),
            residual(random_tensor(shape, 2, {}), true);
        const Variable h = form(bn, convert(x, dtype), convert(residual, dtype));
        Variable y;
        for (uint32_t u = 0; u < users; ++u) {
          const Variable used =
              multiply(convert(h, DType::f32), Variable(random_tensor(shape, 3 + u, {})));
          y = u == 0 ? used : add(y, used);
        }
        std::optional<ObserverScope> scope;
        if (onlooker) scope.emplace(*onlooker);
        y.backward(random_tensor(shape, 6, {}));
        std::vector<std::vector<double>> all = {x.grad().to_vector()};
        if (residual.grad().defined()) all.push_back(residual.grad().to_vector());
        for (const NamedParameter& parameter : bn.named_parameters())
          all.push_back(parameter.variable->grad().to_vector());
        return all;
      };
      Onlooker onlooker;
      EXPECT_EQ(gradients(nullptr), gradients(&onlooker)) << name << ", " << users << " users";
      EXPECT_EQ(onlooker.additions, static_cast<int>(users) - 1);
    }
  }
}

}  // namespace
}  // namespace mocograd
