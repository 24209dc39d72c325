// Augmentation: drawing everything random about a view. Applying it is a kernel (Backend::augment).
//
//   demo   crop 0.08–1, flip, jitter(0.4, 0.4, 0.4, 0.1) p 0.8, grayscale 0.2 (CIFAR notebook)
//   v1     crop 0.2–1, grayscale 0.2, jitter(0.4, 0.4, 0.4, 0.4), flip
//   v2     crop 0.2–1, jitter(0.4, 0.4, 0.4, 0.1) p 0.8, grayscale 0.2, blur σ 0.1–2 p 0.5, flip
//   none   the whole image
//   crop_flip   crop 0.08–1, flip: not for pretraining, but for a linear classifier (main_lincls)
// each ending with the normalisation by the data set's mean and std.
//
// The crop is torchvision's RandomResizedCrop: ten tries of an area uniform in the scale range and
// an aspect ratio log-uniform in 3/4 … 4/3; where none fits, the largest centred box within the
// ratios. Jitter factors are uniform in 1 ± their strength, the hue shift in ± its own; the four
// parts come in random order. A view depends on (seed, epoch, sample, view) alone.
#pragma once

#include <array>
#include <string>

#include "tensor/view_recipe.h"

namespace mocograd {

enum class Augmentation { demo, v1, v2, none, crop_flip };

// demo, v1, v2 or none. Throws UsageError.
Augmentation parse_augmentation(const std::string& name);

// How the views of a data set are to be made.
struct ViewSettings {
  Augmentation augmentation = Augmentation::demo;
  uint64_t seed = 0;
  int64_t height = 0, width = 0;  // of the images
  std::array<float, 3> mean{}, std{};
};

// View `view` (0: query, 1: key) of image `sample` in epoch `epoch`.
ViewRecipe sample_view(const ViewSettings& settings, int64_t epoch, int64_t sample, int view);

// The whole image, nothing random.
ViewRecipe evaluation_view(const ViewSettings& settings, int64_t sample);

}  // namespace mocograd
