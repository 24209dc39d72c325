// The convolution of images with few channels (cuda/conv2d_stem.cu), and which shapes do not go that way.
#include "cuda/launch.h"

#include "cuda/conv2d_stem.h"
#include "exact_conv2d.h"

namespace mocograd {
namespace {

class Conv2dStemTest : public ExactConv2dTest {
 protected:
  // By the stem's kernels, y and dw.
  void check_both(const ExactConv2dCase& s) { check_as(s, true, true); }

  void check_as(const ExactConv2dCase& s, bool forward, bool weight_gradient) {
    const auto empty = [](const Shape& shape, DType dtype) {
      return Tensor::empty(shape, {dtype, Device::cpu});
    };
    const Tensor x = empty(s.x(), DType::bf16), w = empty(s.w(), DType::f32);
    EXPECT_EQ(cuda_emulated::takes_stem(x, w), forward) << s.to_string();
    EXPECT_EQ(cuda_emulated::weight_gradient_takes_stem(x, empty(s.y(), DType::bf16), w),
              weight_gradient)
        << s.to_string();
    check(s);
    check_weight_gradient(s);
  }
};

TEST_P(Conv2dStemTest, OfTheNetworks) {
  check_both({2, 32, 32, 3, 64});  // on the emulator each block goes on to another tile
  check_both({2, 16, 16, 3, 16});
  check_both({1, 32, 32, 1, 64});
}

// Tiles of 128 pixels, steps of 16, which may be the last of an image.
TEST_P(Conv2dStemTest, PixelsAroundTheTiles) {
  for (int64_t W : {1, 2, 15, 16, 17, 127, 128, 129}) check_both({1, 1, W, 3, 64});
  check_both({3, 7, 9, 3, 64});
  check_both({5, 12, 11, 3, 24});
}

TEST_P(Conv2dStemTest, TermsAndChannels) {
  check_both({2, 5, 6, 1, 8, 1, 1, 0});
  check_both({2, 5, 6, 31, 64, 1, 1, 0});
  check_both({2, 9, 8, 1, 56, 5, 1, 2});
  check_both({2, 8, 9, 2, 40, 4, 1, 1});  // 32 terms
  check_both({2, 8, 9, 3, 64, 2, 1, 1, 5});
  check_both({2, 8, 9, 3, 64, 5, 2, 1, 2});
}

TEST_P(Conv2dStemTest, StridesAndPadding) {
  check_both({2, 9, 8, 3, 64, 3, 2, 1});
  check_both({2, 11, 10, 3, 64, 3, 3, 0});
  check_both({2, 3, 4, 3, 64, 3, 1, 3});
  check_both({2, 2, 3, 3, 64, 2, 2, 2});
  check_both({2, 2, 3, 3, 64, 1, 1, 4, 3});
}

// Several blocks share them, and each warp has several steps.
TEST_P(Conv2dStemTest, WeightGradientOfManyPixels) {
  check_weight_gradient({9, 32, 32, 3, 64});
  check_weight_gradient({5, 23, 21, 3, 8});
}

TEST_P(Conv2dStemTest, WithoutPixels) {
  check_both({2, 0, 3, 3, 64, 3, 1, 2});
  check_both({0, 5, 6, 3, 64});
}

TEST_P(Conv2dStemTest, ShapesOfTheOtherKernels) {
  check_as({2, 5, 6, 3, 65}, false, false);
  check_as({2, 5, 6, 3, 72}, false, false);
  check_as({2, 5, 6, 4, 64}, false, false);
  check_as({2, 5, 6, 8, 64, 1, 1, 0}, false, false);
  check_as({2, 5, 6, 3, 5}, true, false);
}

// Where no piece of 16 bytes begins.
TEST_P(Conv2dStemTest, DisplacedImages) {
  check({2, 5, 6, 3, 64}, true);
  check_weight_gradient({2, 5, 6, 3, 64}, true);
}

// An infinity spoils the pixels that read it, and no other: what fills up a sum's terms is zero.
TEST_P(Conv2dStemTest, AnInfinityStaysWhereItIsRead) {
  const ExactConv2dCase s{2, 6, 7, 3, 8};
  const auto spoiled_by = [&](Backend& backend, DType image, DType weights, Device where) {
    Values x = integers(s.x(), 1);
    for (size_t i : {0u, 30u, 130u, 250u}) x[i] = std::numeric_limits<double>::infinity();
    const Tensor y = Tensor::full(s.y(), kNaN, {image, where});
    backend.conv2d_forward(Tensor::from(x, s.x(), {image, where}),
                           Tensor::from(integers(s.w(), 2), s.w(), {weights, where}), s.config(),
                           y);
    std::vector<bool> spoiled;
    for (double value : y.to_vector()) spoiled.push_back(!std::isfinite(value));
    return spoiled;
  };
  EXPECT_EQ(spoiled_by(kernels(), DType::bf16, DType::f32, device()),
            spoiled_by(backend_of(Device::cpu), DType::f64, DType::f64, Device::cpu));
}

// Nor do those behind the last pixel count, of which a step of 16 may have some.
TEST_P(Conv2dStemTest, WhatLiesBehindTheImagesIsNotRead) {
  const ExactConv2dCase s{1, 3, 3, 3, 8};
  const TensorOptions images{DType::bf16, device()};
  const auto among_infinities = [&](const Values& values, const Shape& shape) {
    Values all(values.size() + 4096, std::numeric_limits<double>::infinity());
    std::ranges::copy(values, all.begin());
    const Tensor there = Tensor::from(all, {static_cast<int64_t>(all.size())}, images);
    return there.rows(0, shape.numel()).reshape(shape);
  };
  const Values x = integers(s.x(), 1), dy = integers(s.y(), 3);
  const Tensor dw = Tensor::full(s.w(), kNaN, {DType::f32, device()});
  kernels().conv2d_backward_weight(among_infinities(x, s.x()), among_infinities(dy, s.y()),
                                   s.config(), dw);
  const TensorOptions exact{DType::f64, Device::cpu};
  const Tensor expected = Tensor::empty(s.w(), exact);
  backend_of(Device::cpu)
      .conv2d_backward_weight(Tensor::from(x, s.x(), exact), Tensor::from(dy, s.y(), exact),
                              s.config(), expected);
  expect_exactly(dw, expected.to_vector(), "dw");
}

INSTANTIATE_TEST_SUITE_P(Bf16, Conv2dStemTest,
                         testing::Combine(testing::ValuesIn(bf16_gpu_kernels()),
                                          testing::Values(DType::bf16)),
                         name_of_case);

}  // namespace
}  // namespace mocograd
