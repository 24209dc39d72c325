// Is an image file what its format demands? Asked before the decoder sees it.
//
// stb_image is small and decodes well, but it trusts its input: a Huffman table of more than 256
// codes makes it write out of bounds, a table that is missing is read unwritten, an 18-byte file
// gets 734 MB. So the containers are checked here, to the byte, and the decoder is given only what
// passed:
//
//   JPEG   every segment's length and content, tables defined before a scan names them, every
//          component in a scan, restart markers complete, EOI; bytes after EOI are ignored, as
//          telephones put a second picture there
//   PNG    every chunk's length, type, order and CRC, the size of the inflated pixels and their
//          checksum, nothing after IEND
//
// A width and a height are at most 16,384, a picture has at most 2^26 pixels, and no more than its
// compressed bytes can stand for: memory is bounded by the size of the file.
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tensor/error.h"

namespace mocograd {

// The bytes of one file. Whatever is wrong with them is an Error "NAME: offset N: …".
class ImageBytes {
 public:
  ImageBytes(std::string name, std::span<const uint8_t> bytes)
      : name_(std::move(name)), bytes_(bytes) {}

  size_t size() const { return bytes_.size(); }

  // Big-endian numbers, and stretches of bytes; an Error where the file ends before them.
  std::span<const uint8_t> range(size_t offset, size_t count) const {
    if (offset > size() || count > size() - offset) fail(size(), "the file ends too early");
    return bytes_.subspan(offset, count);
  }
  uint32_t u8(size_t offset) const { return range(offset, 1)[0]; }
  uint32_t u16(size_t offset) const { return u8(offset) << 8 | u8(offset + 1); }
  uint32_t u32(size_t offset) const { return u16(offset) << 16 | u16(offset + 2); }

  template <class... Parts>
  [[noreturn]] void fail(size_t offset, const Parts&... what) const {
    throw Error(detail::concatenate(name_, ": offset ", offset, ": ", what...));
  }

 private:
  std::string name_;
  std::span<const uint8_t> bytes_;
};

constexpr int64_t kMaxImageSide = 16384;
constexpr int64_t kMaxImagePixels = int64_t{1} << 26;

// A file that passed.
struct CheckedImage {
  int64_t height = 0, width = 0;
  size_t data_offset = 0;            // where the compressed pixels begin, for messages
  std::vector<uint8_t> for_decoder;  // the file without what the decoder need not see
};

// Requires: the file begins with the format's signature.
CheckedImage check_jpeg(const ImageBytes& file);
CheckedImage check_png(const ImageBytes& file);

// Throws where no picture may have that size. offset: where the file declares it.
void check_image_size(const ImageBytes& file, size_t offset, int64_t height, int64_t width);

}  // namespace mocograd
