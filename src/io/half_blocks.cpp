#include "io/half_blocks.h"

namespace mocograd {
namespace {

// The parameters of "select graphic rendition": 38 sets the foreground, 48 the background.
std::string color(const char* layer, const uint8_t* rgb) {
  std::string text = std::string(layer) + ";2";
  for (int i = 0; i < 3; ++i) text += ";" + std::to_string(rgb[i]);
  return text;
}

}  // namespace

std::string half_blocks(const uint8_t* rgb, int64_t height, int64_t width) {
  std::string text;
  for (int64_t y = 0; y < height; y += 2) {
    std::string colors;
    for (int64_t x = 0; x < width; ++x) {
      const uint8_t* upper = rgb + 3 * (y * width + x);
      const std::string wanted = y + 1 < height
                                     ? color("38", upper) + ";" + color("48", upper + 3 * width)
                                     : color("38", upper);
      if (wanted != colors) text += "\033[" + wanted + "m";
      colors = wanted;
      text += "▀";
    }
    text += "\033[0m\n";
  }
  return text;
}

}  // namespace mocograd
