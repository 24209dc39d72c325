// Makes PNG files of every kind, for tests: an encoder of our own, to check the decoder with.
#pragma once

#include <zlib.h>

#include <string>
#include <utility>

#include "image_files.h"

namespace mocograd {

// Colour type and bits of a sample: all that are legal.
constexpr std::pair<int, int> kPngKinds[] = {{0, 1}, {0, 2},  {0, 4},  {0, 8}, {0, 16},
                                             {2, 8}, {2, 16}, {3, 1},  {3, 2}, {3, 4},
                                             {3, 8}, {4, 8},  {4, 16}, {6, 8}, {6, 16}};

inline void append_u32(Bytes& bytes, size_t value) {
  for (int shift = 24; shift >= 0; shift -= 8)
    bytes.push_back(static_cast<uint8_t>(value >> shift));
}

inline Bytes png_chunk(const std::string& type, const Bytes& content) {
  Bytes summed(type.begin(), type.end());
  summed.insert(summed.end(), content.begin(), content.end());
  Bytes chunk;
  append_u32(chunk, content.size());
  chunk.insert(chunk.end(), summed.begin(), summed.end());
  append_u32(chunk, crc32_z(0, summed.data(), summed.size()));
  return chunk;
}

inline Bytes zlib_stream(const Bytes& content) {
  uLongf size = compressBound(content.size());
  Bytes stream(size);
  compress(stream.data(), &size, content.data(), content.size());
  stream.resize(size);
  return stream;
}

inline Bytes joined(const std::vector<Bytes>& parts) {
  Bytes all;
  for (const Bytes& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

struct PngMaker {
  int width, height, depth, color;
  bool interlaced = false;

  static Bytes signature() { return {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'}; }

  Bytes header() const {
    Bytes content;
    append_u32(content, static_cast<size_t>(width));
    append_u32(content, static_cast<size_t>(height));
    for (const int value : {depth, color, 0, 0, interlaced ? 1 : 0})
      content.push_back(static_cast<uint8_t>(value));
    return png_chunk("IHDR", content);
  }

  Bytes palette() const {
    Bytes content;
    for (int i = 0; i < 1 << depth; ++i) {
      for (int c = 0; c < 3; ++c) content.push_back(palette_color(i, c));
    }
    return png_chunk("PLTE", content);
  }

  // All rows behind their filter bytes, pass by pass.
  Bytes rows() const {
    if (!interlaced) return pass_rows(0, 0, 1, 1);
    return joined({pass_rows(0, 0, 8, 8), pass_rows(4, 0, 8, 8), pass_rows(0, 4, 4, 8),
                   pass_rows(2, 0, 4, 4), pass_rows(0, 2, 2, 4), pass_rows(1, 0, 2, 2),
                   pass_rows(0, 1, 1, 2)});
  }

  Bytes file() const {
    return joined({signature(), header(), color == 3 ? palette() : Bytes(),
                   png_chunk("tEXt", {'k', 0, 'v'}), png_chunk("IDAT", zlib_stream(rows())),
                   png_chunk("IEND", {})});
  }

  // What the file has to decode to.
  Bytes expected() const {
    Bytes rgb;
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        for (int c = 0; c < 3; ++c) {
          const int value = sample(x, y, color == 2 || color == 6 ? c : 0);
          rgb.push_back(color == 3    ? palette_color(value, c)
                        : depth == 16 ? static_cast<uint8_t>(value >> 8)
                                      : static_cast<uint8_t>(value * 255 / ((1 << depth) - 1)));
        }
      }
    }
    return rgb;
  }

 private:
  int channels() const { return color == 2 ? 3 : color == 4 ? 2 : color == 6 ? 4 : 1; }
  int sample(int x, int y, int channel) const {
    return (x * 2659 + y * 1409 + x * y * 377 + channel * 21001) & ((1 << depth) - 1);
  }
  static uint8_t palette_color(int index, int c) {
    return static_cast<uint8_t>(index * (3 + 2 * c) + 50 * c);
  }

  Bytes packed_row(int left, int y, int across) const {
    Bytes row;
    int bits = 0;
    for (int x = left; x < width; x += across) {
      for (int c = 0; c < channels(); ++c, bits += depth) {
        const int value = sample(x, y, c);
        if (depth == 16) row.push_back(static_cast<uint8_t>(value >> 8));
        if (depth >= 8) row.push_back(static_cast<uint8_t>(value));
        if (depth >= 8) continue;
        if (bits % 8 == 0) row.push_back(0);
        row.back() = static_cast<uint8_t>(row.back() | value << (8 - depth - bits % 8));
      }
    }
    return row;
  }

  // Filter y mod 5 for the y-th row of the pass: none, left, above, their mean, Paeth.
  Bytes pass_rows(int left, int top, int across, int down) const {
    Bytes all, above;
    const size_t back = static_cast<size_t>((channels() * depth + 7) / 8);
    for (int y = top, filter = 0; y < height && left < width; y += down, ++filter) {
      const Bytes row = packed_row(left, y, across);
      above.resize(row.size());
      all.push_back(static_cast<uint8_t>(filter % 5));
      for (size_t i = 0; i < row.size(); ++i) {
        const int a = i < back ? 0 : row[i - back], b = above[i],
                  c = i < back ? 0 : above[i - back];
        const int to_a = std::abs(b - c), to_b = std::abs(a - c), to_c = std::abs(a + b - 2 * c);
        const int paeth = to_a <= to_b && to_a <= to_c ? a : to_b <= to_c ? b : c;
        const int predicted[] = {0, a, b, (a + b) / 2, paeth};
        all.push_back(static_cast<uint8_t>(row[i] - predicted[filter % 5]));
      }
      above = row;
    }
    return all;
  }
};

}  // namespace mocograd
