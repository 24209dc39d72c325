// Modules, layers, ResNet, SGD, schedules and state dicts.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <map>

#include "autograd/ops/conv2d.h"
#include "autograd/ops/pointwise.h"
#include "nn/init.h"
#include "nn/resnet.h"
#include "nn/schedule.h"
#include "nn/sgd.h"
#include "nn/state_dict.h"

namespace mocograd {
namespace {

constexpr TensorOptions kDouble{.dtype = DType::f64};

RandomStream stream(uint32_t sample = 0) {
  return RandomStream(1, Purpose::test, 0, sample);
}

Tensor random_tensor(const Shape& shape, uint32_t sample = 0, TensorOptions options = kDouble) {
  RandomStream random = stream(sample);
  std::vector<double> values(static_cast<size_t>(shape.numel()));
  for (double& value : values) value = random.normal();
  return Tensor::from(values, shape, options);
}

double largest_difference(const Tensor& a, const Tensor& b) {
  EXPECT_EQ(a.shape(), b.shape());
  const std::vector<double> x = a.to_vector(), y = b.to_vector();
  double largest = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    if (!(std::abs(x[i] - y[i]) <= largest)) largest = std::abs(x[i] - y[i]);
  }
  return largest;
}

int64_t parameter_count(const ResNetConfig& config) {
  const ResNet net("net", config, stream());
  int64_t count = 0;
  for (const NamedParameter& parameter : net.named_parameters())
    count += parameter.variable->data().numel();
  return count;
}

// The counts of torchvision's models, with the head's 512 → 1000 replaced (and the stem's 7×7).
TEST(ResNet, ParameterCounts) {
  EXPECT_EQ(parameter_count({.arch = "resnet18", .stem = Stem::imagenet, .dim = 1000}), 11689512);
  EXPECT_EQ(parameter_count({.arch = "resnet34", .stem = Stem::imagenet, .dim = 1000}), 21797672);
  EXPECT_EQ(parameter_count({.arch = "resnet50", .stem = Stem::imagenet, .dim = 1000}), 25557032);
  // He's CIFAR network has 269,722 with ten classes; two 1×1 shortcuts with batch norm come on top.
  EXPECT_EQ(parameter_count({.arch = "resnet20", .dim = 10}),
            269722 + (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64));
}

TEST(ResNet, NamesAreTorchvisions) {
  const ResNet net("net", {.arch = "resnet50", .head = Head::mlp, .width = 2, .dim = 4}, stream());
  std::map<std::string, Shape> shape;
  StateDict state;
  save_state(net, "", state);
  for (const auto& [name, tensor] : state) shape[name] = tensor.shape();
  EXPECT_EQ(shape.at("conv1.weight"), Shape({2, 3, 3, 3}));
  EXPECT_EQ(shape.at("bn1.running_var"), Shape({2}));
  EXPECT_EQ(shape.at("bn1.num_batches_tracked"), Shape());
  EXPECT_EQ(shape.at("layer1.0.downsample.0.weight"), Shape({8, 2, 1, 1}));
  EXPECT_EQ(shape.at("layer1.0.downsample.1.bias"), Shape({8}));
  EXPECT_EQ(shape.at("layer2.0.conv2.weight"), Shape({4, 4, 3, 3}));
  EXPECT_EQ(shape.at("layer4.2.conv3.weight"), Shape({64, 16, 1, 1}));
  EXPECT_EQ(shape.at("fc.0.weight"), Shape({64, 64}));
  EXPECT_EQ(shape.at("fc.2.weight"), Shape({4, 64}));
  EXPECT_FALSE(shape.contains("layer1.1.downsample.0.weight"));
}

TEST(ResNet, UnknownArchitectureIsAnErrorThatListsWhatThereIs) {
  try {
    ResNet net("net", {.arch = "resnet19"}, stream());
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("resnet19"), std::string::npos);
    EXPECT_NE(error.hint().find("resnet50"), std::string::npos);
  }
}

TEST(ResNet, AnErrorNamesTheModuleAndTheLine) {
  ResNet net("encoder_q", {.arch = "resnet20", .width = 2, .splits = 3}, stream());
  try {
    net(Variable(random_tensor({4, 8, 8, 3}, 0, {})));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.what(),
              std::string("batch_norm_relu: a batch of 4 cannot be cut into 3 equal groups"));
    EXPECT_EQ(error.context().find("in encoder_q.bn1 (src/autograd/ops/batch_norm.cpp:"), 0u)
        << error.context();
  }
}

// All parameters' gradients and the output of one forward and backward.
StateDict run_once(bool fused) {
  use_fused_operations(fused);
  ResNet net("net",
             {.arch = "resnet50",
              .stem = Stem::imagenet,
              .width = 2,
              .dim = 3,
              .splits = 2,
              .options = kDouble},
             stream());
  const Variable y = net(Variable(random_tensor({4, 32, 32, 3})));
  y.backward(random_tensor(y.shape(), 1));
  use_fused_operations(true);
  StateDict results;
  save_state(net, "state.", results);
  results["y"] = y.data();
  for (const NamedParameter& parameter : net.named_parameters())
    results["grad." + parameter.name] = parameter.variable->grad();
  return results;
}

TEST(ResNet, FusedOperationsEqualTheUnfusedOnes) {
  const StateDict fused = run_once(true), plain = run_once(false);
  ASSERT_EQ(fused.size(), plain.size());
  for (const auto& [name, tensor] : fused) {
    double scale = 1;
    for (double value : tensor.to_vector()) scale = std::max(scale, std::abs(value));
    EXPECT_LE(largest_difference(tensor, plain.at(name)), 1e-12 * scale) << name;
  }
}

// In bf16 a relu is fused to the bit. A convolution after it sums the gradient in another order: there x's
// may be rounded to the next number. A residual the fused form adds to z = batch_norm(x) before z is
// rounded, the unfused after, and both round their sum y.  |y − y'| <= 2⁻⁸·(|z| + |y| + |y'|), and equal
// gradients, where no rounding moves a sum past zero.
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

TEST(BatchNorm2d, OneValueAGroupIsAnError) {
  BatchNorm2d bn(2, 2, kDouble);
  EXPECT_THROW(bn(Variable(random_tensor({2, 1, 1, 2}))), Error);
}

// In f32 this convolution is Winograd's, which takes them.
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

TEST(Init, KaimingNormalFanOut) {
  RandomStream random = stream();
  const std::vector<double> w = kaiming_normal_fan_out({3, 3, 32, 64}, random, kDouble).to_vector();
  double square = 0, sum = 0;
  for (double value : w) {
    sum += value;
    square += value * value;
  }
  const double n = static_cast<double>(w.size()), std = std::sqrt(2.0 / (64 * 9));
  EXPECT_NEAR(sum / n, 0, 5 * std / std::sqrt(n));
  EXPECT_NEAR(square / n / (std * std), 1, 5 * std::sqrt(2 / n));
}

TEST(Init, UniformFanIn) {
  RandomStream random = stream();
  const std::vector<double> w = uniform_fan_in({200, 100}, 100, random, kDouble).to_vector();
  const auto [low, high] = std::minmax_element(w.begin(), w.end());
  EXPECT_GE(*low, -0.1);
  EXPECT_LT(*high, 0.1);
  EXPECT_LT(*low, -0.0999);
  EXPECT_GT(*high, 0.0999);
}

TEST(Sgd, TwoStepsByHand) {
  RandomStream random = stream();
  Linear layer(1, 1, random, kDouble);
  Variable* w = layer.named_parameters()[0].variable;
  Variable* b = layer.named_parameters()[1].variable;
  w->data().fill(2);
  b->data().fill(0);
  Sgd sgd(layer, {.momentum = 0.5, .weight_decay = 0.1});
  const Variable x(Tensor::full({1, 1}, 3, kDouble));
  double theta = 2, velocity = 0;
  for (int step = 0; step < 2; ++step) {
    sgd.zero_grad();
    sum(layer(x)).backward();  // ∂/∂w = 3
    sgd.step(0.01);
    velocity = 0.5 * velocity + (3 + 0.1 * theta);
    theta -= 0.01 * velocity;
    EXPECT_DOUBLE_EQ(w->data().item(), theta);
    EXPECT_DOUBLE_EQ(sgd.slots()[0].momentum_buffer.item(), velocity);
  }
}

TEST(Sgd, AStepWithoutAGradientIsAnError) {
  RandomStream random = stream();
  Linear layer(1, 1, random, kDouble);
  Sgd sgd(layer, {});
  EXPECT_THROW(sgd.step(0.1), Error);
}

TEST(Schedule, CosineEndsAtZero) {
  const Schedule cosine = Schedule::parse("cosine");
  EXPECT_DOUBLE_EQ(cosine.learning_rate(0.06, 100, 200), 0.03);
  EXPECT_NEAR(cosine.learning_rate(0.06, 200, 200), 0, 1e-17);
  EXPECT_DOUBLE_EQ(cosine.learning_rate(1, 1, 3), 0.75);
}

TEST(Schedule, StepsDivideByTenAtTheirMilestones) {
  const Schedule steps = Schedule::parse("step:120,160");
  EXPECT_DOUBLE_EQ(steps.learning_rate(1, 120, 200), 1);
  EXPECT_DOUBLE_EQ(steps.learning_rate(1, 121, 200), 0.1);
  EXPECT_NEAR(steps.learning_rate(1, 161, 200), 0.01, 1e-17);
}

TEST(Schedule, WrongTextsAreRefused) {
  for (const char* text :
       {"", "linear", "step:", "step:a", "step:10,5", "step:10,", "step:0", "step:1.5", "cosine "})
    EXPECT_THROW(Schedule::parse(text), UsageError) << text;
}

TEST(StateDict, RoundTripRestoresEveryNumber) {
  const ResNetConfig config{.arch = "resnet20", .width = 2, .dim = 3, .options = kDouble};
  ResNet net("net", config, stream(0)), other("net", config, stream(1));
  net(Variable(random_tensor({2, 8, 8, 3})));  // so that the buffers are not at their beginning
  StateDict state, restored;
  save_state(net, "p.", state);
  load_state(other, "p.", state);
  save_state(other, "p.", restored);
  for (const auto& [name, tensor] : state)
    EXPECT_EQ(tensor.to_vector(), restored.at(name).to_vector()) << name;
  net.eval();
  other.eval();
  const Variable x(random_tensor({1, 8, 8, 3}, 5));
  EXPECT_EQ(net(x).data().to_vector(), other(x).data().to_vector());
}

TEST(StateDict, ConvolutionWeightsAreInPyTorchsOrder) {
  const Tensor inside = random_tensor({2, 3, 4, 5});  // [KH, KW, C, OC]
  const Tensor outside = to_pytorch(inside, Layout::conv_weight);
  ASSERT_EQ(outside.shape(), Shape({5, 4, 2, 3}));
  const auto at = [](const Tensor& t, int64_t a, int64_t b, int64_t c, int64_t d) {
    return t.data<double>()[((a * t.dim(1) + b) * t.dim(2) + c) * t.dim(3) + d];
  };
  EXPECT_EQ(at(outside, 4, 1, 0, 2), at(inside, 0, 2, 1, 4));
  EXPECT_EQ(largest_difference(from_pytorch(outside, Layout::conv_weight), inside), 0);
}

TEST(StateDict, AWrongTensorIsNamedAndChangesNothing) {
  RandomStream random = stream();
  Linear layer(2, 3, random, kDouble);
  StateDict before, state;
  save_state(layer, "", before);
  state["weight"] = Tensor::zeros({3, 2}, kDouble);
  EXPECT_THROW(load_state(layer, "", state), Error);
  state["bias"] = Tensor::zeros({4}, kDouble);
  try {
    load_state(layer, "", state);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.what(), std::string("state dict: bias is f64 [4], the network needs f64 [3]"));
  }
  StateDict after;
  save_state(layer, "", after);
  EXPECT_EQ(after.at("weight").to_vector(), before.at("weight").to_vector());
}

}  // namespace
}  // namespace mocograd
