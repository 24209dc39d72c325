// Pictures in a terminal: each character is an upper half block (▀), whose colour is one pixel and
// whose background is the pixel below it, in 24-bit colour.
#pragma once

#include <cstdint>
#include <string>

namespace mocograd {

//   rgb: height · width · 3 bytes, row by row
// ⌈height / 2⌉ lines of width characters; each line ends with the colours put back.
std::string half_blocks(const uint8_t* rgb, int64_t height, int64_t width);

}  // namespace mocograd
