#include "data/augmentation.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "tensor/error.h"
#include "tensor/random.h"

namespace mocograd {
namespace {

constexpr double kFlipProbability = 0.5, kGrayProbability = 0.2, kBlurProbability = 0.5;

// The numbers in which the recipes differ.
struct Strength {
  double smallest_area, jitter_probability, hue;
  bool gray_first, blur;
};

Strength strength_of(Augmentation augmentation) {
  switch (augmentation) {
    case Augmentation::v1:
      return {0.2, 1.0, 0.4, true, false};
    case Augmentation::v2:
      return {0.2, 0.8, 0.1, false, true};
    default:
      return {0.08, 0.8, 0.1, false, false};
  }
}

void set_box(ViewRecipe& view, double height, double width, int64_t top, int64_t left) {
  view.height = static_cast<int32_t>(height);
  view.width = static_cast<int32_t>(width);
  view.top = static_cast<int32_t>(top);
  view.left = static_cast<int32_t>(left);
}

void sample_crop(ViewRecipe& view, const ViewSettings& settings, double smallest_area,
                 RandomStream& random) {
  constexpr int kTries = 10;
  constexpr double kLowRatio = 3.0 / 4, kHighRatio = 4.0 / 3;
  const double height = static_cast<double>(settings.height);
  const double width = static_cast<double>(settings.width);
  for (int attempt = 0; attempt < kTries; ++attempt) {
    const double area = height * width * random.uniform(smallest_area, 1);
    const double ratio = std::exp(random.uniform(std::log(kLowRatio), std::log(kHighRatio)));
    const double w = std::nearbyint(std::sqrt(area * ratio));  // half to even, as Python rounds
    const double h = std::nearbyint(std::sqrt(area / ratio));
    if (w < 1 || w > width || h < 1 || h > height) continue;
    const int64_t top = random.below(settings.height - static_cast<int64_t>(h) + 1);
    const int64_t left = random.below(settings.width - static_cast<int64_t>(w) + 1);
    return set_box(view, h, w, top, left);
  }
  const double ratio = width / height;
  const double w = ratio > kHighRatio ? std::nearbyint(height * kHighRatio) : width;
  const double h = ratio < kLowRatio ? std::nearbyint(width / kLowRatio) : height;
  set_box(view, h, w, (settings.height - static_cast<int64_t>(h)) / 2,
          (settings.width - static_cast<int64_t>(w)) / 2);
}

void sample_jitter(ViewRecipe& view, double hue, RandomStream& random) {
  constexpr double kStrength = 0.4;
  constexpr ViewRecipe::JitterPart kParts[] = {ViewRecipe::brightness, ViewRecipe::contrast,
                                               ViewRecipe::saturation, ViewRecipe::hue};
  const std::vector<int64_t> order = random_permutation(4, random);
  for (int i = 0; i < 4; ++i) view.jitter_order[i] = kParts[order[static_cast<size_t>(i)]];
  const auto factor = [&] {
    return static_cast<float>(random.uniform(1 - kStrength, 1 + kStrength));
  };
  view.brightness_factor = factor();
  view.contrast_factor = factor();
  view.saturation_factor = factor();
  view.hue_shift = static_cast<float>(random.uniform(-hue, hue));
}

}  // namespace

Augmentation parse_augmentation(const std::string& name) {
  for (const auto& [known, augmentation] :
       {std::pair{"demo", Augmentation::demo}, std::pair{"v1", Augmentation::v1},
        std::pair{"v2", Augmentation::v2}, std::pair{"none", Augmentation::none}}) {
    if (name == known) return augmentation;
  }
  throw UsageError("--augment " + name + ": must be demo, v1, v2 or none");
}

ViewRecipe sample_view(const ViewSettings& settings, int64_t epoch, int64_t sample,
                       int view_index) {
  ViewRecipe view = evaluation_view(settings, sample);
  if (settings.augmentation == Augmentation::none) return view;
  const Strength strength = strength_of(settings.augmentation);
  RandomStream random(settings.seed, Purpose::augmentation, static_cast<uint32_t>(epoch),
                      static_cast<uint32_t>(sample), static_cast<uint16_t>(view_index));
  sample_crop(view, settings, strength.smallest_area, random);
  view.flip = random.uniform() < kFlipProbability;
  if (settings.augmentation == Augmentation::crop_flip) return view;
  if (random.uniform() < strength.jitter_probability) sample_jitter(view, strength.hue, random);
  const bool gray = random.uniform() < kGrayProbability;
  (strength.gray_first ? view.gray_first : view.gray_last) = gray;
  if (strength.blur && random.uniform() < kBlurProbability)
    view.blur_sigma = static_cast<float>(random.uniform(0.1, 2));
  return view;
}

ViewRecipe evaluation_view(const ViewSettings& settings, int64_t sample) {
  ViewRecipe view;
  view.image = sample;
  set_box(view, static_cast<double>(settings.height), static_cast<double>(settings.width), 0, 0);
  std::copy(settings.mean.begin(), settings.mean.end(), view.mean);
  std::copy(settings.std.begin(), settings.std.end(), view.std);
  return view;
}

}  // namespace mocograd
