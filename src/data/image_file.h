// Image files: PNG and JPEG to RGB, and RGB to PNG.
//
// The format is told by the file's first bytes, not by its name. Whatever comes in leaves as 8-bit
// RGB: gray is repeated, a palette is looked up, of 16 bits the upper 8 are kept, YCbCr, CMYK and
// YCCK are converted, and transparency is dropped, as torchvision's loader does. Colour profiles,
// gamma and the orientation that cameras note (EXIF) are not applied.
//
// A damaged file is an Error that names the file and the offset (data/image_check.h); one whose
// compressed pixels are merely wrong may decode to wrong pixels, the same ones each time.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace mocograd {

struct Image {
  int64_t height = 0, width = 0;
  std::vector<uint8_t> rgb;  // [H, W, 3]
};

Image read_image(const std::string& path);
// name: for messages.
Image decode_image(const std::string& name, std::span<const uint8_t> bytes);

// Replaced atomically and durably (io/durable_file.h).
void write_png(const std::string& path, const Image& image);

}  // namespace mocograd
