// PNG (W3C, third edition): a signature and chunks
//
//   u32 length; four letters of type; content; u32 CRC of type and content
//
// IHDR first, PLTE before the IDATs where colours are a palette's, IDATs in a row, IEND last. The
// IDATs together are one zlib stream of rows, each behind a byte that says how it is filtered; of
// an interlaced picture seven passes, each a smaller picture.
#include <zlib.h>

#include <algorithm>
#include <array>
#include <memory>
#include <utility>

#include "data/image_check.h"

namespace mocograd {
namespace {

constexpr size_t kSignatureBytes = 8;
constexpr size_t kChunkBytes = 12;  // of a chunk besides its content

constexpr uint32_t type_of(const char (&letters)[5]) {
  uint32_t type = 0;
  for (int i = 0; i < 4; ++i) type = type << 8 | static_cast<uint32_t>(letters[i]);
  return type;
}
constexpr uint32_t kIHDR = type_of("IHDR"), kPLTE = type_of("PLTE"), kIDAT = type_of("IDAT"),
                   kIEND = type_of("IEND");

enum Color : uint32_t { gray = 0, rgb = 2, palette = 3, gray_alpha = 4, rgb_alpha = 6 };

struct Chunk {
  uint32_t type;
  size_t begin, length;  // of its content
};

class PngCheck {
 public:
  explicit PngCheck(const ImageBytes& file) : file_(file) {}

  CheckedImage run() {
    keep(file_.range(0, kSignatureBytes));
    Chunk chunk = read_chunk(kSignatureBytes);
    if (chunk.type != kIHDR) file_.fail(kSignatureBytes, "the first chunk is not IHDR");
    header(chunk);
    for (;;) {
      const size_t at = chunk.begin + chunk.length + 4;
      chunk = read_chunk(at);
      if (chunk.type == kPLTE) {
        read_palette(chunk);
      } else if (chunk.type == kIDAT) {
        if (data_.empty() && color_ == palette && !has_palette_)
          file_.fail(at, "there is no palette before the pixels");
        if (!data_.empty() && data_.back().begin + data_.back().length + 4 != at)
          file_.fail(at, "the IDAT chunks are not one after the other");
        data_.push_back(chunk);
        if (chunk.length > 0) keep_chunk(chunk);
      } else if (chunk.type == kIEND) {
        break;
      } else if ((chunk.type >> 24 & 0x20) == 0) {  // a capital letter
        file_.fail(at, "a chunk that is unknown or out of place, and not to be ignored");
      }
    }
    if (data_.empty()) file_.fail(chunk.begin, "there is no IDAT chunk");
    if (chunk.length != 0) file_.fail(chunk.begin, "IEND is not empty");
    if (file_.size() != chunk.begin + 4) file_.fail(chunk.begin + 4, "bytes after IEND");
    keep_chunk(chunk);
    check_pixels();
    result_.data_offset = data_.front().begin;
    return std::move(result_);
  }

 private:
  Chunk read_chunk(size_t at) const {
    const size_t length = file_.u32(at);
    if (length >= size_t{1} << 31) file_.fail(at, "a chunk of ", length, " bytes");
    const Chunk chunk{file_.u32(at + 4), at + 8, length};
    const std::span<const uint8_t> summed = file_.range(at + 4, 4 + length);
    for (const uint8_t letter : summed.first(4)) {
      if ((letter | 0x20) < 'a' || (letter | 0x20) > 'z')
        file_.fail(at + 4, "the type of a chunk is not four letters");
    }
    const uint32_t expected = file_.u32(at + 8 + length);
    if (crc32_z(0, summed.data(), summed.size()) != expected)
      file_.fail(at + 8 + length, "the checksum (CRC) of the chunk before it is wrong");
    return chunk;
  }

  // Width, height, bits of a sample, colour, compression, filter, interlace.
  void header(const Chunk& chunk) {
    const size_t at = chunk.begin;
    if (chunk.length != 13) file_.fail(at, "IHDR has ", chunk.length, " bytes, not 13");
    result_.width = file_.u32(at);
    result_.height = file_.u32(at + 4);
    check_image_size(file_, at, result_.height, result_.width);
    depth_ = file_.u8(at + 8);
    color_ = file_.u8(at + 9);
    const bool whole_bytes = depth_ == 8 || depth_ == 16;
    const bool parts = depth_ == 1 || depth_ == 2 || depth_ == 4;
    const bool legal =
        color_ == gray ? whole_bytes || parts
        : color_ == palette
            ? depth_ == 8 || parts
            : (color_ == rgb || color_ == gray_alpha || color_ == rgb_alpha) && whole_bytes;
    if (!legal) file_.fail(at + 8, "colour type ", color_, " with ", depth_, " bits");
    if (file_.u8(at + 10) != 0) file_.fail(at + 10, "an unknown compression method");
    if (file_.u8(at + 11) != 0) file_.fail(at + 11, "an unknown filter method");
    if (file_.u8(at + 12) > 1) file_.fail(at + 12, "an unknown interlace method");
    interlaced_ = file_.u8(at + 12) == 1;
    keep_chunk(chunk);
  }

  // Filled up to 256 colours with black, because the decoder looks up what the pixels say.
  void read_palette(const Chunk& chunk) {
    constexpr size_t kBytes = 3 * 256;
    if (has_palette_ || !data_.empty() || color_ == gray || color_ == gray_alpha)
      file_.fail(chunk.begin, "PLTE is out of place");
    if (chunk.length == 0 || chunk.length % 3 != 0 || chunk.length > kBytes)
      file_.fail(chunk.begin, "a palette of ", chunk.length, " bytes");
    has_palette_ = true;
    constexpr std::array<uint8_t, 8> kHead = {0, 0, kBytes >> 8, kBytes & 255, 'P', 'L', 'T', 'E'};
    keep(kHead);
    keep(file_.range(chunk.begin, chunk.length));
    constexpr size_t kUncheckedCrc = 4;
    result_.for_decoder.resize(result_.for_decoder.size() + kBytes - chunk.length + kUncheckedCrc);
  }

  void keep(std::span<const uint8_t> bytes) {
    result_.for_decoder.insert(result_.for_decoder.end(), bytes.begin(), bytes.end());
  }
  void keep_chunk(const Chunk& chunk) {
    keep(file_.range(chunk.begin - 8, chunk.length + kChunkBytes));
  }

  // Bytes of the rows of a picture of that size, with their filter bytes.
  size_t bytes_of_rows(size_t height, size_t width) const {
    const size_t channels = color_ == rgb          ? 3
                            : color_ == rgb_alpha  ? 4
                            : color_ == gray_alpha ? 2
                                                   : 1;
    return width == 0 ? 0 : height * (1 + (width * channels * depth_ + 7) / 8);
  }

  size_t expected_bytes() const {
    const size_t height = static_cast<size_t>(result_.height);
    const size_t width = static_cast<size_t>(result_.width);
    if (!interlaced_) return bytes_of_rows(height, width);
    struct Pass {
      size_t left, top, across, down;
    };
    constexpr Pass kPasses[] = {{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4},
                                {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}};
    size_t sum = 0;
    for (const Pass& pass : kPasses)
      sum += bytes_of_rows((height - pass.top + pass.down - 1) / pass.down,
                           (width - pass.left + pass.across - 1) / pass.across);
    return sum;
  }

  // Inflates the pixels into nowhere: is it one whole stream of just the expected length? Where it
  // is longer, the rest is not looked at.
  void check_pixels() const {
    const size_t expected = expected_bytes();
    z_stream stream = {};
    if (inflateInit(&stream) != Z_OK) throw Error("zlib: out of memory");
    const std::unique_ptr<z_stream, int (*)(z_stream*)> end(&stream, inflateEnd);
    std::array<uint8_t, 1 << 15> output;
    int status = Z_OK;
    for (const Chunk& chunk : data_) {
      const std::span<const uint8_t> input = file_.range(chunk.begin, chunk.length);
      stream.next_in = const_cast<uint8_t*>(input.data());
      stream.avail_in = static_cast<uInt>(input.size());
      do {
        stream.next_out = output.data();
        stream.avail_out = output.size();
        status = inflate(&stream, Z_NO_FLUSH);
        const size_t at = chunk.begin + input.size() - stream.avail_in;
        if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR)
          file_.fail(at, "the compressed pixels are damaged");
        if (stream.total_out > expected)
          file_.fail(at, "more than the ", expected, " bytes of the pixels");
      } while (status == Z_OK && stream.avail_out == 0);
      if (status == Z_STREAM_END) break;
    }
    if (status != Z_STREAM_END || stream.total_out != expected)
      file_.fail(data_.back().begin + data_.back().length, "the pixels end after ",
                 stream.total_out, " bytes of ", expected);
  }

  const ImageBytes& file_;
  CheckedImage result_;
  uint32_t depth_ = 0, color_ = 0;
  bool interlaced_ = false, has_palette_ = false;
  std::vector<Chunk> data_;
};

}  // namespace

CheckedImage check_png(const ImageBytes& file) {
  return PngCheck(file).run();
}

}  // namespace mocograd
