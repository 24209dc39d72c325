// The kernel augment against torchvision (tests/fixtures/augmentation), and what holds for any size
// of image and view.
#include <algorithm>

#include "io/safetensors.h"
#include "kernel_cases.h"

namespace mocograd {
namespace {

class AugmentKernelTest : public KernelTest {
 protected:
  Tensor augment(const Tensor& images, const std::vector<ViewRecipe>& views, int64_t size) const {
    const Tensor there = images.to(device());
    return run([&] {
      const Tensor y = poisoned({static_cast<int64_t>(views.size()), size, size, 3});
      kernels().augment(there, views.data(), y);
      return std::vector<Tensor>{y};
    })[0];
  }
};

INSTANTIATE_TEST_SUITE_P(Kernels, AugmentKernelTest,
                         testing::Combine(testing::ValuesIn(all_kernels()),
                                          testing::Values(DType::f32)),
                         name_of_case);

// Before the normalisation, where values are in [0, 1]. With u = 2⁻²⁴: the sums of a resize have at
// most 13 terms a direction (96 to 17 pixels) and err by 2·13·u = 1.6e-6 at most; brightness,
// contrast and saturation multiply an error by |f| + |1 − f| <= 1.8 at most, hue by 4, and add a few
// u each. A jitter of all four could so reach 2e-5 if every rounding went the same way; half of that
// is asked for.
constexpr double kTolerance = 1e-5;

ViewRecipe recipe_of(const double* row) {
  ViewRecipe view;
  const auto next_int = [&row] { return static_cast<int32_t>(*row++); };
  const auto next_float = [&row] { return static_cast<float>(*row++); };
  view.image = next_int();
  for (int32_t* value : {&view.top, &view.left, &view.height, &view.width}) *value = next_int();
  for (ViewRecipe::JitterPart& part : view.jitter_order)
    part = static_cast<ViewRecipe::JitterPart>(next_int());
  for (float* value : {&view.brightness_factor, &view.contrast_factor, &view.saturation_factor,
                       &view.hue_shift, &view.blur_sigma})
    *value = next_float();
  for (bool* value : {&view.gray_first, &view.gray_last, &view.flip}) *value = next_int() != 0;
  for (float& value : view.mean) value = next_float();
  for (float& value : view.std) value = next_float();
  return view;
}

// What went wrong is named by the recipe's place in its group (tools/make_augmentation_fixtures.py).
TEST_P(AugmentKernelTest, AgreesWithTorchvision) {
  const auto fixtures = read_safetensors("tests/fixtures/augmentation/views.safetensors").tensors;
  for (const std::string group : {"tall", "square", "large", "tiny"}) {
    const Tensor recipes = fixtures.at(group + ".recipes");
    const Tensor expected = fixtures.at(group + ".views").permute({0, 2, 3, 1});
    const int64_t n = recipes.dim(0);
    ASSERT_EQ(recipes.dim(1), 23);
    std::vector<ViewRecipe> views;
    for (int64_t i = 0; i < n; ++i)
      views.push_back(recipe_of(recipes.data<double>() + i * recipes.dim(1)));
    const Tensor actual = augment(fixtures.at(group + ".images"), views, expected.dim(1));
    for (int64_t i = 0; i < n; ++i) {
      const ViewRecipe& view = views[static_cast<size_t>(i)];
      const double bound = kTolerance / *std::min_element(view.std, view.std + 3);
      const Values values = expected.rows(i, i + 1).to_vector();
      expect_within(actual.rows(i, i + 1), values, Values(values.size(), bound),
                    group + " " + std::to_string(i));
    }
  }
}

Tensor random_images(int64_t count, int64_t height, int64_t width) {
  RandomStream random(7, Purpose::test, 0, static_cast<uint32_t>(height * 1000 + width));
  const Tensor images = Tensor::empty({count, 3, height, width}, {DType::u8});
  for (int64_t i = 0; i < images.numel(); ++i)
    images.data<uint8_t>()[i] = static_cast<uint8_t>(random.below(256));
  return images;
}

ViewRecipe box(int64_t top, int64_t left, int64_t height, int64_t width, int64_t image = 0) {
  ViewRecipe view;
  view.image = image;
  view.top = static_cast<int32_t>(top);
  view.left = static_cast<int32_t>(left);
  view.height = static_cast<int32_t>(height);
  view.width = static_cast<int32_t>(width);
  return view;
}

// [3, H, W] bytes to [H, W, 3] values in [0, 1].
Values values_of(const Tensor& image) {
  Values values = image.permute({0, 2, 3, 1}).to_vector();
  for (double& value : values) value /= 255;
  return values;
}

TEST_P(AugmentKernelTest, ABoxOfTheViewsSizeIsCutOutUnchanged) {
  for (const int64_t size : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47}) {
    const Tensor images = random_images(2, size + 3, size + 5);
    const Tensor y = augment(images, {box(2, 4, size, size, 1)}, size);
    const Values whole = values_of(images.rows(1, 2));
    Values expected;
    for (int64_t row = 2; row < 2 + size; ++row) {
      const auto begin = whole.begin() + (row * (size + 5) + 4) * 3;
      expected.insert(expected.end(), begin, begin + size * 3);
    }
    // Two roundings, of 1/255 and of its product.
    expect_within(y, expected, Values(expected.size(), 2 * eps()),
                  "view of " + std::to_string(size));
  }
}

// Every part of a recipe on, for a picture of one grey: only brightness changes it.
TEST_P(AugmentKernelTest, KeepsAPlainGreyPlain) {
  for (const int64_t size : {1, 2, 3, 7, 8, 13, 17, 33}) {
    for (const auto& [height, width] : {std::pair{1, 1}, std::pair{5, 31}, std::pair{64, 37}}) {
      const Tensor images = Tensor::full({1, 3, height, width}, 102, {DType::u8});
      ViewRecipe view = box(0, 0, height, width);
      const ViewRecipe::JitterPart order[] = {ViewRecipe::contrast, ViewRecipe::hue,
                                              ViewRecipe::saturation, ViewRecipe::brightness};
      std::copy(order, order + 4, view.jitter_order);
      view.brightness_factor = 1.5f;
      view.contrast_factor = 0.7f;
      view.saturation_factor = 1.3f;
      view.hue_shift = 0.3f;
      view.gray_last = view.flip = true;
      view.blur_sigma = 1.7f;
      const Tensor y = augment(images, {view}, size);
      // The weights of grey sum to 0.9999; gray_last takes it all, contrast and saturation 0.3 of it.
      const size_t numel = static_cast<size_t>(y.numel());
      expect_within(y, Values(numel, 0.6), Values(numel, 1e-4), "view of " + std::to_string(size));
    }
  }
}

// Views of unlike recipes and of larger views made before leave nothing behind.
TEST_P(AugmentKernelTest, AViewDependsOnItsRecipeAlone) {
  const Tensor images = random_images(3, 29, 23);
  ViewRecipe blurred = box(1, 2, 20, 21, 2), jittered = box(3, 3, 9, 8),
             plain = box(0, 0, 29, 23, 1);
  blurred.blur_sigma = 2;
  jittered.jitter_order[1] = ViewRecipe::contrast;
  jittered.contrast_factor = 1.4f;
  jittered.mean[1] = 0.25f;
  jittered.std[2] = 0.5f;
  const std::vector<ViewRecipe> views = {blurred, jittered, plain, jittered, blurred};
  augment(images, views, 40);
  const Tensor together = augment(images, views, 13);
  for (int64_t i = 0; i < together.dim(0); ++i) {
    const Tensor alone = augment(images, {views[static_cast<size_t>(i)]}, 13);
    EXPECT_EQ(alone.to_vector(), together.rows(i, i + 1).to_vector()) << "view " << i;
  }
}

// The memory for a view of so high a picture limits a CUDA kernel to 34 blocks.
TEST_P(AugmentKernelTest, ABlockMakesSeveralViews) {
  const Tensor images = random_images(1, 20000, 5);
  std::vector<ViewRecipe> views;
  for (int i = 0; i < 80; ++i) {
    ViewRecipe view = box(137 * i, i % 3, 11 + i, 2 + i % 2);
    view.flip = i % 2 == 0;
    if (i % 3 > 0) view.blur_sigma = 0.3f + 0.02f * static_cast<float>(i);
    views.push_back(view);
  }
  const Tensor together = augment(images, views, 32);
  for (int64_t i = 0; i < together.dim(0); ++i) {
    const Tensor alone = augment(images, {views[static_cast<size_t>(i)]}, 32);
    ASSERT_EQ(alone.to_vector(), together.rows(i, i + 1).to_vector()) << "view " << i;
  }
}

TEST_P(AugmentKernelTest, FlipMirrorsTheView) {
  const Tensor images = random_images(1, 21, 34);
  ViewRecipe view = box(2, 3, 17, 29);
  view.blur_sigma = 0.8f;
  view.mean[0] = 0.4f;
  view.std[1] = 0.2f;
  const Values straight = augment(images, {view}, 19).to_vector();
  view.flip = true;
  const Values flipped = augment(images, {view}, 19).to_vector();
  for (size_t i = 0; i < straight.size(); ++i) {
    const size_t row = i / 57, column = i / 3 % 19;
    ASSERT_EQ(flipped[i], straight[(row * 19 + 18 - column) * 3 + i % 3]) << i;
  }
}

// A shrinking by a whole factor f: the triangle reaches f pixels to both sides of a pixel's centre.
TEST_P(AugmentKernelTest, ShrinkingIsSmoothedOverTheWholeTriangle) {
  constexpr int64_t kFactor = 4, kSize = 9;
  const Tensor images = Tensor::zeros({1, 3, kFactor * kSize, kFactor * kSize}, {DType::u8});
  uint8_t* pixels = images.data<uint8_t>();
  const int64_t at = kFactor * 4 + 1;  // one white column
  for (int64_t row = 0; row < 3 * kFactor * kSize; ++row) pixels[row * kFactor * kSize + at] = 255;
  const Tensor y = augment(images, {box(0, 0, kFactor * kSize, kFactor * kSize)}, kSize);
  Values expected;
  for (int64_t i = 0; i < kSize * kSize * 3; ++i) {
    const double center = (static_cast<double>(i / 3 % kSize) + 0.5) * kFactor;
    const double distance = std::abs(static_cast<double>(at) + 0.5 - center) / kFactor;
    expected.push_back(std::max(0.0, 1 - distance) / kFactor);
  }
  expect_within(y, expected, Values(expected.size(), kTolerance), "white column");
}

}  // namespace
}  // namespace mocograd
