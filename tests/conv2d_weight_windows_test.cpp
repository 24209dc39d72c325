// The weight gradients of 3×3 convolutions from windows of the image (cuda/conv2d_weight_windows.cu), and
// shapes that do not go that way, against the CPU's in f64. All numbers are small integers, so that sums in
// any order are the same and none is rounded: the result has to be that number and no other.
#include "kernel_cases.h"

namespace mocograd {
namespace {

struct Case {
  int64_t N, H, W, C, OC;
  int64_t kernel = 3, stride = 1, padding = 1;
};

class Conv2dWeightWindowsTest : public KernelTest {
 protected:
  static Tensor integers(const Shape& shape, uint32_t name) {
    RandomStream random(7, Purpose::test, 0, name);
    Values values(static_cast<size_t>(shape.numel()));
    for (double& value : values) value = static_cast<double>(random.below(9)) - 4;
    return Tensor::from(values, shape, {DType::f64, Device::cpu});
  }

  void check(const Case& s) {
    const Conv2dConfig config{.stride = s.stride, .padding = s.padding};
    const int64_t OH = (s.H + 2 * s.padding - s.kernel) / s.stride + 1;
    const int64_t OW = (s.W + 2 * s.padding - s.kernel) / s.stride + 1;
    const Tensor x = integers({s.N, s.H, s.W, s.C}, 1), dy = integers({s.N, OH, OW, s.OC}, 2);
    const Shape shape{s.kernel, s.kernel, s.C, s.OC};
    const auto gradient = [&](const TensorOptions& images, DType weights) {
      const Tensor dw = Tensor::full(shape, kNaN, {weights, images.device});
      const auto there = [&](const Tensor& image) {
        return Tensor::from(image.to_vector(), image.shape(), images);
      };
      backend_of(images.device).conv2d_backward_weight(there(x), there(dy), config, dw);
      return dw;
    };
    const Tensor dw = run([&] { return std::vector<Tensor>{gradient(options(), DType::f32)}; })[0];
    const Tensor expected = gradient({DType::f64, Device::cpu}, DType::f64);
    expect_exactly(dw, expected.to_vector(),
                   "dw " + shape.to_string() + " of x " + x.shape().to_string());
  }
};

TEST_P(Conv2dWeightWindowsTest, SquaresOf8) {
  check({1, 8, 8, 64, 64});  // half a stage
  check({3, 8, 8, 64, 128});
  check({1, 16, 16, 128, 64});
  check({5, 16, 16, 64, 64});  // blocks share ten stages
  check({1, 32, 32, 64, 64});
  check({3, 8, 16, 192, 64});
  check({1, 24, 40, 64, 192});  // stages of two rows of squares
}

TEST_P(Conv2dWeightWindowsTest, SquaresOf4InTwoImages) {
  check({1, 4, 4, 64, 64});  // without the second image
  check({2, 4, 4, 64, 192});
  check({5, 4, 4, 128, 64});
  check({9, 4, 4, 64, 64});   // two stages
  check({33, 4, 4, 64, 64});  // blocks share five stages
  check({3, 12, 4, 64, 64});
  check({3, 4, 12, 64, 128});
  check({3, 20, 20, 64, 64});
  check({1, 4, 8, 64, 64});
}

// So many tiles that blocks do not share the pixels: each has five stages, one more than there is room for.
TEST_P(Conv2dWeightWindowsTest, ManyStagesToABlock) {
  check({33, 4, 4, 256, 64 * 17});
}

TEST_P(Conv2dWeightWindowsTest, ShapesOfTheOtherKernels) {
  check({1, 8, 8, 72, 64});
  check({1, 8, 8, 64, 72});
  check({1, 6, 8, 64, 64});
  check({1, 8, 6, 64, 64});
  check({1, 8, 8, 64, 64, 3, 2, 1});
  check({1, 8, 8, 64, 64, 3, 1, 0});
  check({1, 8, 8, 64, 64, 1, 1, 0});
  check({1, 8, 8, 64, 64, 5, 1, 1});
}

std::vector<Kernels> wgmma_kernels() {
  std::vector<Kernels> kernels = {
      {.device = Device::cuda_emulated, .instructions = TensorCoreInstructions::wgmma}};
  if (device_problem(Device::cuda).empty()) kernels.push_back({.device = Device::cuda});
  return kernels;
}
INSTANTIATE_TEST_SUITE_P(Bf16, Conv2dWeightWindowsTest,
                         testing::Combine(testing::ValuesIn(wgmma_kernels()),
                                          testing::Values(DType::bf16)),
                         name_of_case);

}  // namespace
}  // namespace mocograd
