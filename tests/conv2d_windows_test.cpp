// The 3×3 convolutions from windows of the image (cuda/conv2d_windows.cu), and which shapes do not go
// that way, against the CPU's in f64. All numbers are small integers, so that sums in any order are the
// same and only the result is rounded, to bf16: it has to be that number and no other.
#include "cpu/conv_algorithm.h"
#include "kernel_cases.h"

namespace mocograd {
namespace {

struct Case {
  int64_t N, H, W, C, OC;
  int64_t kernel = 3, stride = 1, padding = 1;
};

class Conv2dWindowsTest : public KernelTest {
 protected:
  Conv2dWindowsTest() { set_conv_algorithm(ConvAlgorithm::direct); }
  ~Conv2dWindowsTest() override { set_conv_algorithm(ConvAlgorithm::automatic); }

  static Values integers(const Shape& shape, uint32_t name) {
    RandomStream random(7, Purpose::test, 0, name);
    Values values(static_cast<size_t>(shape.numel()));
    for (double& value : values) value = static_cast<double>(random.below(9)) - 4;
    return values;
  }

  void check(const Case& s) {
    const Conv2dConfig config{.stride = s.stride, .padding = s.padding};
    const int64_t OH = (s.H + 2 * s.padding - s.kernel) / s.stride + 1;
    const int64_t OW = (s.W + 2 * s.padding - s.kernel) / s.stride + 1;
    const Shape x_shape{s.N, s.H, s.W, s.C}, w_shape{s.kernel, s.kernel, s.C, s.OC};
    const Shape y_shape{s.N, OH, OW, s.OC};
    const Values x = integers(x_shape, 1), w = integers(w_shape, 2), dy = integers(y_shape, 3);
    const auto convolve = [&](Backend& backend, DType image, DType weights, Device where) {
      const TensorOptions images{image, where};
      const Tensor y = poisoned_on(y_shape, images), dx = poisoned_on(x_shape, images);
      const Tensor w_there = Tensor::from(w, w_shape, {weights, where});
      backend.conv2d_forward(Tensor::from(x, x_shape, images), w_there, config, y);
      backend.conv2d_backward_data(Tensor::from(dy, y_shape, images), w_there, config, dx);
      return std::vector<Tensor>{y, dx};
    };
    const std::vector<Tensor> results =
        run([&] { return convolve(kernels(), DType::bf16, DType::f32, device()); });
    const std::vector<Tensor> expected =
        convolve(backend_of(Device::cpu), DType::f64, DType::f64, Device::cpu);
    const std::string which = " of x " + x_shape.to_string() + ", w " + w_shape.to_string();
    for (size_t i = 0; i < 2; ++i) {
      const Tensor rounded =
          Tensor::from(expected[i].to_vector(), expected[i].shape(), {DType::bf16, Device::cpu});
      expect_exactly(results[i], rounded.to_vector(), (i == 0 ? "y" : "dx") + which);
    }
  }

 private:
  static Tensor poisoned_on(const Shape& shape, const TensorOptions& options) {
    return Tensor::full(shape, kNaN, options);
  }
};

TEST_P(Conv2dWindowsTest, SixtyFourChannels) {
  check({1, 8, 8, 64, 64});
  check({5, 8, 8, 64, 64});  // the second window is not full
  check({3, 16, 16, 64, 64});
  check({1, 32, 32, 64, 64});
  check({1, 24, 40, 64, 64});  // windows of two rows of squares
  check({47, 8, 8, 64, 64});   // on the emulator every warpgroup has two windows
}

TEST_P(Conv2dWindowsTest, Of128AndMoreChannels) {
  check({1, 8, 8, 128, 128});
  check({5, 8, 8, 128, 128});
  check({1, 16, 16, 256, 128});
  check({1, 24, 40, 128, 128});
  check({2, 8, 16, 192, 256});
  check({3, 16, 16, 64, 128});  // one panel to a tile
}

TEST_P(Conv2dWindowsTest, ShapesOfTheOtherKernels) {
  check({1, 8, 8, 64, 192});
  check({1, 16, 8, 192, 320});
  check({1, 8, 8, 72, 128});
  check({1, 12, 8, 64, 64});
  check({1, 8, 12, 64, 128});
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
INSTANTIATE_TEST_SUITE_P(Bf16, Conv2dWindowsTest,
                         testing::Combine(testing::ValuesIn(wgmma_kernels()),
                                          testing::Values(DType::bf16)),
                         name_of_case);

}  // namespace
}  // namespace mocograd
