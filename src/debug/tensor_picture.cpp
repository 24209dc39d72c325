#include "debug/tensor_picture.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "io/half_blocks.h"
#include "tensor/statistics.h"

namespace mocograd {
namespace {

constexpr int64_t kMaxColumns = 96;

void check_below(const char* what, int64_t index, int64_t size) {
  if (index < 0 || index >= size)
    throw Error(detail::concatenate("show: ", what, " ", index, " is outside of 0 to ", size - 1));
}

uint8_t byte_of(double unit) {  // from [0, 1]; a NaN is black
  return std::isnan(unit) ? 0 : static_cast<uint8_t>(std::lround(255 * std::clamp(unit, 0.0, 1.0)));
}

}  // namespace

std::string picture(const Tensor& x, int64_t image, int64_t channel,
                    const std::optional<Normalization>& normalization) {
  if (x.ndim() != 4 || x.numel() == 0) throw Error("show: needs [N, H, W, C], got " + x.describe());
  const int64_t height = x.dim(1), width = x.dim(2), channels = x.dim(3);
  check_below("image", image, x.dim(0));
  check_below("channel", channel, channels);
  const Tensor chosen = x.rows(image, image + 1);
  const std::vector<double> values = chosen.to_vector();

  double low = INFINITY, high = -INFINITY;
  for (size_t i = static_cast<size_t>(channel); i < values.size();
       i += static_cast<size_t>(channels)) {
    if (!std::isfinite(values[i])) continue;
    low = std::min(low, values[i]);
    high = std::max(high, values[i]);
  }
  const double range = high > low ? high - low : 1;

  const int64_t every = (width + kMaxColumns - 1) / kMaxColumns;
  std::vector<uint8_t> rgb;
  for (int64_t h = 0; h < height; h += every) {
    for (int64_t w = 0; w < width; w += every) {
      const double* pixel = &values[static_cast<size_t>((h * width + w) * channels)];
      for (size_t c = 0; c < 3; ++c)
        rgb.push_back(byte_of(normalization
                                  ? pixel[c] * normalization->std[c] + normalization->mean[c]
                                  : (pixel[channel] - low) / range));
    }
  }
  std::string text =
      detail::concatenate("image ", image, " of ", x.dim(0), ", ", height, " x ", width);
  if (normalization) {
    text += ", RGB with the normalisation undone";
  } else {
    text += detail::concatenate(", channel ", channel, " of ", channels, ", from ", low,
                                " (black) to ", high, " (white)");
  }
  if (every > 1) text += detail::concatenate(", one pixel in ", every, " each way");
  const auto drawn = [every](int64_t size) { return (size + every - 1) / every; };
  return text + "\n" + half_blocks(rgb.data(), drawn(height), drawn(width));
}

}  // namespace mocograd
