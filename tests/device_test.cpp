// Devices: tensors move between them, what is above the kernels works on each, and where the GPU
// cannot be used one line says why.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>

#include "autograd/gradcheck.h"
#include "cuda/emulator/scheduler.h"
#include "debug/dump.h"
#include "devices.h"
#include "moco/checkpoint.h"
#include "moco/knn.h"
#include "moco/linear_eval.h"
#include "tensor/backend.h"
#include "tensor/statistics.h"
#include "tiny_data.h"
#include "tiny_step.h"

namespace mocograd {
namespace {

// What is above the kernels, on a device that is not the CPU.
class DeviceTest : public testing::TestWithParam<Device> {
 protected:
  const Device far_ = GetParam();
};

INSTANTIATE_TEST_SUITE_P(Kernels, DeviceTest, testing::ValuesIn(far_devices()),
                         [](const auto& info) {
                           return info.param == Device::cuda ? "cuda" : "cuda_emulated";
                         });

// Whether the tests run on a GPU too, and why not.
TEST(Device, TheGpuIsTestedToo) {
  const std::string problem = device_problem(Device::cuda);
  if (!problem.empty()) GTEST_SKIP() << "device cuda: " << problem;
}

TEST(Device, ARefusedGpuIsOneLine) {
  const std::string problem = device_problem(Device::cuda);
  if (problem.empty()) GTEST_SKIP() << "this machine has a GPU";
  EXPECT_EQ(problem.find('\n'), std::string::npos);
  try {
    Tensor::zeros({1}, {.device = Device::cuda});
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()), "device cuda: " + problem);
  }
}

TEST_P(DeviceTest, TensorsMoveThereAndBack) {
  for (DType dtype : {DType::f32, DType::f64, DType::i64, DType::u8}) {
    const std::vector<double> numbers = {1, 2, 3, 4, 5, 6};
    const Tensor host = Tensor::from(numbers, {3, 2}, {dtype});
    const Tensor far = host.to(far_);
    EXPECT_EQ(far.device(), far_);
    EXPECT_NE(far.raw_bytes(), host.raw_bytes());
    EXPECT_EQ(far.to_vector(), numbers);
    EXPECT_EQ(far.rows(1, 3).to_vector(), (std::vector<double>{3, 4, 5, 6}));
    EXPECT_EQ(far.clone().reshape({6}).to(Device::cpu).to_vector(), numbers);
    far.rows(0, 1).copy_from(Tensor::from({8, 9}, {1, 2}, {dtype}));
    host.rows(2, 3).copy_from(far.rows(0, 1));
    EXPECT_EQ(host.to_vector(), (std::vector<double>{1, 2, 3, 4, 8, 9}));
    EXPECT_EQ(Tensor::from(numbers, {6}, {dtype, far_}).to_vector(), numbers);
    EXPECT_EQ(Tensor::full({}, 7, {dtype, far_}).item(), 7);
  }
}

TEST_P(DeviceTest, EmptyTensorsAreNothingToCopyOrCompute) {
  const Tensor none = Tensor::zeros({0, 3}, {.device = far_});
  EXPECT_EQ(none.to(Device::cpu).to_vector(), std::vector<double>());
  EXPECT_EQ(none.to(DType::f64).numel(), 0);
  none.backend().add(none, none, none);
}

TEST(Device, WithoutMemoryTheErrorSaysHowMuchThereIs) {
  const Tensor used = Tensor::zeros({1000}, {.device = Device::cuda_emulated});
  const size_t in_use = emulator::memory_in_use();
  emulator::set_memory_limit(in_use + 4096);
  EXPECT_EQ(used.backend().total_memory(), in_use + 4096);
  try {
    Tensor::empty({1025}, {.device = Device::cuda_emulated});
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()),
              "cuda emulator: cannot allocate 4100 bytes: 4096 of the device's " +
                  std::to_string(in_use + 4096) + " are free");
    EXPECT_FALSE(error.hint().empty());
  }
  Tensor::empty({1000}, {.device = Device::cuda_emulated});
  Tensor::empty({1000}, {.device = Device::cuda_emulated});  // the one before was given back
  emulator::set_memory_limit(SIZE_MAX);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // which end the program there
TEST(Device, WithoutALimitTheHostRefuses) {
  try {
    Tensor::empty({Shape::kMaxNumel}, {.device = Device::cuda_emulated});
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("bytes: the host refuses; "), std::string::npos);
  }
}
#endif

TEST_P(DeviceTest, StatisticsReadAnyMemory) {
  const Tensor x = Tensor::from({1, -3, 2}, {3}, {.device = far_});
  EXPECT_EQ(statistics_of(x).min, -3);
  EXPECT_TRUE(all_finite(x));
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (double damage : {std::nan(""), kInfinity, -kInfinity}) {
    for (int64_t at : {0, 700, 1999}) {
      const Tensor y = Tensor::full({2, 1000}, 1e30, {.device = far_});
      y.reshape({2000}).rows(at, at + 1).fill(damage);
      EXPECT_FALSE(all_finite(y)) << damage << " at " << at;
    }
  }
  EXPECT_TRUE(all_finite(Tensor::full({3}, 1e30, {.device = far_})));
}

TEST_P(DeviceTest, EveryGradientIsADerivativeThereToo) {
  for (const RegisteredCase& registered : gradcheck_cases()) {
    const GradcheckResult result = check_case(registered, 2, 0, far_);
    EXPECT_TRUE(result.passed) << registered.op << ": " << result.failure;
  }
}

// max |a − b| <= 1e-9 · max |b|, tensor by tensor, as against PyTorch (parity_test.cpp).
void expect_equal_in_double(const StateDict& actual, const StateDict& expected) {
  EXPECT_EQ(actual.size(), expected.size());
  for (const auto& [name, tensor] : expected) {
    ASSERT_TRUE(actual.contains(name)) << name;
    ASSERT_EQ(actual.at(name).shape(), tensor.shape()) << name;
    const std::vector<double> a = actual.at(name).to_vector(), b = tensor.to_vector();
    double difference = 0, scale = 0;
    for (size_t i = 0; i < b.size(); ++i) {
      const double d = std::abs(a[i] - b[i]);
      if (!(d <= difference)) difference = d;  // keeps a NaN
      scale = std::max(scale, std::abs(b[i]));
    }
    EXPECT_TRUE(difference <= 1e-9 * scale) << name << ": " << difference << " of " << scale;
  }
}

// Every result and gradient of two steps, and the state that they leave.
StateDict two_steps(Device device, bool symmetric) {
  TinyStep step(DType::f64, symmetric, 0, device);
  NamedTensors dump;
  Dumper dumper(dump);
  for (int64_t s = 0; s < 2; ++s) {
    dumper.begin_step(s);
    const ObserverScope scope(dumper);
    step.run();
  }
  dump.tensors.merge(checkpoint_state(step.moco, &step.optimizer));
  return dump.tensors;
}

TEST_P(DeviceTest, AStepIsTheCpusInEveryIntermediateResult) {
  for (bool symmetric : {false, true}) {
    const StateDict expected = two_steps(Device::cpu, symmetric);
    EXPECT_GT(expected.size(), 200u);
    expect_equal_in_double(two_steps(far_, symmetric), expected);
  }
}

TEST_P(DeviceTest, AnUnfusedStepIsTheCpusInEveryIntermediateResult) {
  const Unfused unfused;
  expect_equal_in_double(two_steps(far_, false), two_steps(Device::cpu, false));
}

TEST_P(DeviceTest, CheckpointsMoveFreely) {
  TinyStep there(DType::f32, false, 0, far_), here(DType::f32, false, 1);
  there.run();
  const StateDict state = checkpoint_state(there.moco, &there.optimizer);
  for (const auto& [name, tensor] : state) EXPECT_EQ(tensor.device(), Device::cpu) << name;
  restore_state(state, here.moco, &here.optimizer);
  const StateDict copy = checkpoint_state(here.moco, &here.optimizer);
  TinyStep back(DType::f32, false, 1, far_);
  restore_state(copy, back.moco, &back.optimizer);
  for (const auto& [name, tensor] : checkpoint_state(back.moco, &back.optimizer))
    EXPECT_EQ(tensor.to_vector(), state.at(name).to_vector()) << name;
  // And goes on there bit for bit.
  EXPECT_EQ(back.moco.train_step(there.views, back.optimizer, 0.1).loss, there.run().loss);
}

TEST_P(DeviceTest, WeightsBeginTheSame) {
  TinyStep here, there(DType::f32, false, 0, far_);
  const StateDict expected = checkpoint_state(here.moco, nullptr);
  for (const auto& [name, tensor] : checkpoint_state(there.moco, nullptr))
    EXPECT_EQ(tensor.to_vector(), expected.at(name).to_vector()) << name;
}

TEST_P(DeviceTest, EvaluationsReachTheSameAccuracy) {
  const DataSet data = tiny_data();
  const LinearEvalConfig config{.lr = 2, .batch = 20, .epochs = 3};
  std::vector<double> knn, linear;
  for (Device device : {Device::cpu, far_}) {
    ResNet encoder("encoder_q",
                   {.arch = "resnet20", .width = 4, .dim = 5, .options = {.device = device}},
                   RandomStream(3, Purpose::initial_weights));
    LinearEvalObserver observer;
    knn.push_back(knn_monitor(encoder, data, 8, {.k = 7}));
    linear.push_back(evaluate_linear(encoder, data, 8, config, observer).top1);
  }
  EXPECT_EQ(knn[0], knn[1]);
  EXPECT_EQ(linear[0], linear[1]);
}

}  // namespace
}  // namespace mocograd
