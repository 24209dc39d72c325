// Parity: training steps reproduce what PyTorch computed in float64, number by number, on every
// device. The committed cases are described in tests/fixtures/README.md; a larger one is used where
// MOCO_TEST_DATA is set.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <tuple>

#include "devices.h"
#include "io/safetensors.h"
#include "tensor/backend.h"

namespace mocograd {
namespace {

namespace fs = std::filesystem;

constexpr double kTolerance = 1e-9;  // max |a − b| <= kTolerance · max |b|, tensor by tensor

fs::path program() {
  const char* build = std::getenv("BUILD");
  return fs::path(build ? build : "build") / "moco";
}

// Runs `moco step` on PREFIX.init and PREFIX.views and returns what it dumped.
std::map<std::string, Tensor> run_step(const std::string& prefix, const std::string& flags) {
  const fs::path dump = fs::temp_directory_path() / ("parity-" + std::to_string(getpid()));
  const std::string command = program().string() + " step --init " + prefix +
                              ".init.safetensors --views " + prefix + ".views.safetensors --dump " +
                              dump.string() + " " + flags;
  EXPECT_EQ(std::system(command.c_str()), 0) << command;
  auto tensors = read_safetensors(dump.string()).tensors;
  fs::remove(dump);
  return tensors;
}

struct Difference {
  double largest = 0, scale = 0, square = 0, square_scale = 0;
};

Difference difference(const Tensor& actual, const Tensor& expected) {
  const std::vector<double> a = actual.to_vector(), b = expected.to_vector();
  Difference result;
  for (size_t i = 0; i < b.size(); ++i) {
    const double d = std::abs(a[i] - b[i]);
    if (!(d <= result.largest)) result.largest = d;  // keeps a NaN
    result.scale = std::max(result.scale, std::abs(b[i]));
    result.square += d * d;
    result.square_scale += b[i] * b[i];
  }
  return result;
}

void expect_equal_in_double(const std::string& prefix, const std::string& flags) {
  const auto expected = read_safetensors(prefix + ".expect.safetensors").tensors;
  const auto actual = run_step(prefix, flags + " --dtype f64");
  ASSERT_GT(expected.size(), 100u);
  for (const auto& [name, tensor] : expected) {
    ASSERT_TRUE(actual.contains(name)) << name;
    ASSERT_EQ(actual.at(name).shape(), tensor.shape()) << name;
    ASSERT_EQ(actual.at(name).dtype(), tensor.dtype()) << name;
    const Difference d = difference(actual.at(name), tensor);
    EXPECT_TRUE(d.largest <= kTolerance * d.scale)
        << name << ": " << d.largest << " of " << d.scale;
  }
}

// Single precision: only the first step, since a ReLU that flips on a rounding is no error.
void expect_near_in_single(const std::string& prefix, const std::string& flags) {
  const auto expected = read_safetensors(prefix + ".expect.safetensors").tensors;
  const auto actual = run_step(prefix, flags + " --dtype f32");
  for (const auto& [name, tensor] : expected) {
    if (name.rfind("step.0.", 0) != 0) continue;
    const Difference d = difference(actual.at(name), tensor);
    if (name.rfind("step.0.grad.", 0) == 0) {
      EXPECT_TRUE(std::sqrt(d.square) <= 0.1 * std::sqrt(d.square_scale)) << name;
    } else {
      EXPECT_TRUE(d.largest <= 1e-3 * d.scale) << name << ": " << d.largest << " of " << d.scale;
    }
  }
}

std::string flags_of(const std::string& prefix) {
  std::ifstream stream(prefix + ".flags");
  std::string flags;
  std::getline(stream, flags);
  EXPECT_FALSE(flags.empty()) << prefix << ".flags";
  return flags;
}

class Parity : public testing::TestWithParam<std::tuple<const char*, Device>> {
 protected:
  const std::string prefix_ = std::string("tests/fixtures/") + std::get<0>(GetParam());
  const std::string flags_ = flags_of(prefix_) + " --device " + name_of(std::get<1>(GetParam()));
};

TEST_P(Parity, EqualsPyTorchInDouble) {
  expect_equal_in_double(prefix_, flags_);
}

TEST_P(Parity, IsNearPyTorchInSingle) {
  expect_near_in_single(prefix_, flags_);
}

std::string test_name(const testing::TestParamInfo<std::tuple<const char*, Device>>& info) {
  std::string name =
      std::string(std::get<0>(info.param)) + "_on_" + name_of(std::get<1>(info.param));
  for (char& c : name) c = c == '-' ? '_' : c;
  return name;
}

INSTANTIATE_TEST_SUITE_P(, Parity,
                         testing::Combine(testing::Values("mlp-head", "bn-splits", "shuffle",
                                                          "symmetric", "queue-wrap", "bottleneck",
                                                          "imagenet-stem"),
                                          testing::ValuesIn(all_devices())),
                         test_name);

TEST(ParityWithGivenData, TinyResNet18) {
  const char* data = std::getenv("MOCO_TEST_DATA");
  if (!data) GTEST_SKIP() << "MOCO_TEST_DATA is not set";
  const std::string prefix = std::string(data) + "/fixtures/tiny-resnet18";
  const std::string flags =
      "--arch resnet18 --stem cifar --width 4 --dim 16 --head linear --queue 64 --momentum 0.99 "
      "--temperature 0.1 --lr 0.06 --weight-decay 0.0005 --sgd-momentum 0.9 --bn-splits 1";
  for (Device device : all_devices()) {
    const std::string device_flag = std::string(" --device ") + name_of(device);
    expect_equal_in_double(prefix, flags + device_flag);
    expect_near_in_single(prefix, flags + device_flag);
  }
}

}  // namespace
}  // namespace mocograd
