// One image of a tensor as a picture for a terminal.
#pragma once

#include <array>
#include <optional>
#include <string>

#include "tensor/tensor.h"

namespace mocograd {

// What views were normalised with: (x − mean) / std, of RGB in [0, 1].
struct Normalization {
  std::array<float, 3> mean{}, std{};
};

// A line on what is shown, and the picture in half blocks (io/half_blocks.h). At most 96 columns:
// of a wider image each second, third, … pixel.
//   x: [N, H, W, C]
// With a normalization, which needs C = 3, the RGB image; without, `channel` as grey, black its
// least and white its greatest number.
std::string picture(const Tensor& x, int64_t image, int64_t channel,
                    const std::optional<Normalization>& normalization);

}  // namespace mocograd
