// ViewRecipe: everything random about one augmented view, drawn beforehand (data/augmentation.h),
// so that applying it is a pure function and gives the same picture on every device.
//
// Applied in this order, in RGB with values in [0, 1]:
//   1. crop: the box [top, top + height) × [left, left + width) of the image, resized to S×S
//   2. grayscale, if gray_first
//   3. colour jitter: the parts of jitter_order, one after the other
//   4. grayscale, if gray_last
//   5. Gaussian blur, if blur_sigma > 0
//   6. horizontal flip, if flip (it commutes with all of the above but the crop)
//   7. normalise: (value − mean) / std, per channel
#pragma once

#include <cstdint>

namespace mocograd {

struct ViewRecipe {
  enum JitterPart : uint8_t { brightness, contrast, saturation, hue, none };

  int64_t image = 0;  // row of the data set
  int32_t top = 0, left = 0, height = 0, width = 0;
  JitterPart jitter_order[4] = {none, none, none, none};
  float brightness_factor = 1, contrast_factor = 1, saturation_factor = 1;
  float hue_shift = 0;  // in turns of the colour circle, [-0.5, 0.5]
  float blur_sigma = 0;
  bool gray_first = false, gray_last = false, flip = false;
  float mean[3] = {0, 0, 0}, std[3] = {1, 1, 1};
};

}  // namespace mocograd
