// ResNet, initial weights, SGD, schedules and state dicts.
#include <map>

#include "autograd/observer.h"
#include "autograd/ops/conv2d.h"
#include "autograd/ops/pointwise.h"
#include "nn/init.h"
#include "nn/resnet.h"
#include "nn/schedule.h"
#include "nn/sgd.h"
#include "nn/state_dict.h"
#include "nn_tensors.h"

namespace mocograd {
namespace {

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

std::map<std::string, std::vector<double>> buffers_of(const Module& module) {
  std::map<std::string, std::vector<double>> buffers;
  for (const NamedBuffer& buffer : module.named_buffers())
    buffers[buffer.name] = buffer.tensor->to_vector();
  return buffers;
}

// They are left to the end of the forward pass, and are then what each batch norm would have made of
// its own; of a pass that did not end none is left to a later one.
TEST(ResNet, RunningStatisticsAreUpdatedOnceAForwardPass) {
  const ResNetConfig config{.arch = "resnet20", .width = 2, .splits = 2, .options = kDouble};
  const Variable x(random_tensor({4, 8, 8, 3}));
  ResNet net("net", config, stream());
  const auto initial = buffers_of(net);
  net(x);
  const auto updated = buffers_of(net);
  for (const auto& [name, values] : initial) EXPECT_NE(updated.at(name), values) << name;
  const auto first_of = [&](BatchNorm2d& bn) {
    bn(conv2d(x, *net.named_parameters()[0].variable, {.stride = 1, .padding = 1}));
    return buffers_of(bn);
  };
  BatchNorm2d alone(2, 2, kDouble);
  for (const auto& [name, values] : first_of(alone))
    EXPECT_EQ(updated.at("bn1." + name), values) << name;

  struct Stop : OperationObserver {
    void operation(const Operation& operation) override {
      if (operation.module == "net.layer2.0.bn1") throw Error("stop");
    }
  };
  ResNet stopped("net", config, stream());
  {
    Stop stop;
    const ObserverScope scope(stop);
    EXPECT_THROW(stopped(x), Error);
  }
  BatchNorm2d afterwards(2, 2, kDouble);
  EXPECT_EQ(first_of(afterwards), buffers_of(alone)) << "at once";
  EXPECT_EQ(buffers_of(stopped).at("bn1.running_mean"), initial.at("bn1.running_mean"));
  stopped(x);
  for (const auto& [name, values] : buffers_of(stopped)) {
    if (name.ends_with("num_batches_tracked")) continue;
    EXPECT_EQ(values, updated.at(name)) << name;
  }

  net.eval();
  net(x);
  EXPECT_EQ(buffers_of(net), updated);
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
