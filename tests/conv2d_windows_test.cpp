// The 3×3 convolutions from windows of the image (cuda/conv2d_windows.cu, conv2d_weight_windows.cu),
// and which shapes do not go that way.
#include "exact_conv2d.h"

namespace mocograd {
namespace {

class Conv2dWindowsTest : public ExactConv2dTest {};

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
