// The 3×3 convolutions from windows of the image (cuda/conv2d_windows.cu, conv2d_weight_windows.cu),
// and which shapes do not go that way, against the CPU's in f64. All numbers are small integers, so
// that sums in any order are the same and only the results y and dx are rounded, to bf16: each has to
// be that number and no other.
#include "cpu/conv_algorithm.h"
#include "kernel_cases.h"

namespace mocograd {
namespace {

struct Case {
  int64_t N, H, W, C, OC;
  int64_t kernel = 3, stride = 1, padding = 1;

  Conv2dConfig config() const { return {.stride = stride, .padding = padding}; }
  int64_t output(int64_t size) const { return (size + 2 * padding - kernel) / stride + 1; }
  Shape x() const { return {N, H, W, C}; }
  Shape w() const { return {kernel, kernel, C, OC}; }
  Shape y() const { return {N, output(H), output(W), OC}; }
  std::string to_string() const { return " of x " + x().to_string() + ", w " + w().to_string(); }
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

  void check(const Case& s, bool displaced_images = false) {
    const Values x = integers(s.x(), 1), w = integers(s.w(), 2), dy = integers(s.y(), 3);
    const auto convolve = [&](Backend& backend, DType image, DType weights, Device where) {
      const TensorOptions images{image, where};
      const auto place = [&](const Tensor& image) {
        return displaced_images ? displaced(image) : image;
      };
      const Tensor y = place(poisoned_on(s.y(), images)), dx = place(poisoned_on(s.x(), images));
      const Tensor w_there = Tensor::from(w, s.w(), {weights, where});
      backend.conv2d_forward(place(Tensor::from(x, s.x(), images)), w_there, s.config(), y);
      backend.conv2d_backward_data(place(Tensor::from(dy, s.y(), images)), w_there, s.config(), dx);
      return std::vector<Tensor>{y, dx};
    };
    const std::vector<Tensor> results =
        run([&] { return convolve(kernels(), DType::bf16, DType::f32, device()); });
    const std::vector<Tensor> expected =
        convolve(backend_of(Device::cpu), DType::f64, DType::f64, Device::cpu);
    for (size_t i = 0; i < 2; ++i) {
      const Tensor rounded =
          Tensor::from(expected[i].to_vector(), expected[i].shape(), {DType::bf16, Device::cpu});
      expect_exactly(results[i], rounded.to_vector(), (i == 0 ? "y" : "dx") + s.to_string());
    }
  }

  void check_weight_gradient(const Case& s, bool displaced_images = false) {
    const Values x = integers(s.x(), 1), dy = integers(s.y(), 3);
    const auto gradient = [&](Backend& backend, DType image, DType weights, Device where) {
      const TensorOptions images{image, where};
      const Tensor dw = poisoned_on(s.w(), {weights, where});
      const auto place = [&](const Tensor& image) {
        return displaced_images ? displaced(image) : image;
      };
      backend.conv2d_backward_weight(place(Tensor::from(x, s.x(), images)),
                                     place(Tensor::from(dy, s.y(), images)), s.config(), dw);
      return std::vector<Tensor>{dw};
    };
    const std::vector<Tensor> result =
        run([&] { return gradient(kernels(), DType::bf16, DType::f32, device()); });
    const std::vector<Tensor> expected =
        gradient(backend_of(Device::cpu), DType::f64, DType::f64, Device::cpu);
    expect_exactly(result[0], expected[0].to_vector(), "dw" + s.to_string());
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

// Two images in a square, eight squares in a window.
TEST_P(Conv2dWindowsTest, ImagesOf4By4) {
  check({1, 4, 4, 64, 128});
  check({16, 4, 4, 64, 128});
  check({19, 4, 4, 128, 256});
  check({33, 4, 4, 192, 128});
}

TEST_P(Conv2dWindowsTest, ShapesOfTheOtherKernels) {
  check({2, 4, 4, 64, 64});
  check({2, 4, 12, 64, 128});
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

// Where no piece of 16 bytes begins, and of no channels.
TEST_P(Conv2dWindowsTest, PlacesAndShapesOfNoPiece) {
  check({1, 8, 8, 64, 64}, true);
  check({1, 8, 8, 64, 128}, true);
  check({1, 5, 5, 8, 16}, true);
  check_weight_gradient({1, 8, 8, 64, 64}, true);
  check_weight_gradient({1, 5, 5, 8, 16}, true);
  check({2, 8, 8, 0, 64});
  check({2, 8, 8, 64, 0});
  check_weight_gradient({0, 8, 8, 64, 64});
}

TEST_P(Conv2dWindowsTest, WeightGradientBySquaresOf8) {
  check_weight_gradient({1, 8, 8, 64, 64});  // half a stage
  check_weight_gradient({3, 8, 8, 64, 128});
  check_weight_gradient({1, 16, 16, 128, 64});
  check_weight_gradient({5, 16, 16, 64, 64});  // blocks share ten stages
  check_weight_gradient({1, 32, 32, 64, 64});
  check_weight_gradient({3, 8, 16, 192, 64});
  check_weight_gradient({1, 24, 40, 64, 192});  // stages of two rows of squares
}

TEST_P(Conv2dWindowsTest, WeightGradientBySquaresOf4) {
  check_weight_gradient({1, 4, 4, 64, 64});  // without the second image
  check_weight_gradient({2, 4, 4, 64, 192});
  check_weight_gradient({5, 4, 4, 128, 64});
  check_weight_gradient({33, 4, 4, 64, 64});  // blocks share five stages
  check_weight_gradient({3, 12, 4, 64, 64});
  check_weight_gradient({3, 4, 12, 64, 128});
  check_weight_gradient({3, 20, 20, 64, 64});
  check_weight_gradient({1, 4, 8, 64, 64});
}

// So many tiles that blocks do not share the pixels: each has one stage more than there is room for.
TEST_P(Conv2dWindowsTest, WeightGradientOfManyStages) {
  check_weight_gradient({33, 4, 4, 256, 64 * 17});
}

TEST_P(Conv2dWindowsTest, WeightGradientOfOtherShapes) {
  check_weight_gradient({1, 8, 8, 72, 64});
  check_weight_gradient({1, 8, 8, 64, 72});
  check_weight_gradient({1, 6, 8, 64, 64});
  check_weight_gradient({1, 8, 6, 64, 64});
  check_weight_gradient({1, 8, 8, 64, 64, 3, 2, 1});
  check_weight_gradient({1, 8, 8, 64, 64, 3, 1, 0});
  check_weight_gradient({1, 8, 8, 64, 64, 1, 1, 0});
  check_weight_gradient({1, 8, 8, 64, 64, 5, 1, 1});
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
