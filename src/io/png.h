// Writing pictures as PNG, by stb_image_write.
#pragma once

#include <cstdint>
#include <string>

namespace mocograd {

//   rgb: height · width · 3 bytes, row by row
// Replaces the file durably (io/durable_file.h). Throws Error naming it.
void write_png(const std::string& path, const uint8_t* rgb, int64_t height, int64_t width);

}  // namespace mocograd
