// Pictures out: PNG files and half blocks in a terminal.
#include <gtest/gtest.h>
#include <zlib.h>

#include <array>
#include <fstream>
#include <vector>

#include "io/half_blocks.h"
#include "io/png.h"
#include "temporary_directory.h"
#include "tensor/error.h"

namespace mocograd {
namespace {

constexpr std::array<uint8_t, 18> kTwoByThree = {1, 2, 3, 4, 5, 6, 7, 8, 9,  // two rows of three
                                                 9, 8, 7, 6, 5, 4, 3, 2, 255};

TEST(HalfBlocks, TwoPixelsACharacter) {
  EXPECT_EQ(half_blocks(kTwoByThree.data(), 2, 3),
            "\033[38;2;1;2;3;48;2;9;8;7m▀\033[38;2;4;5;6;48;2;6;5;4m▀"
            "\033[38;2;7;8;9;48;2;3;2;255m▀\033[0m\n");
}

TEST(HalfBlocks, AnOddLastRowHasNoBackground) {
  EXPECT_EQ(half_blocks(kTwoByThree.data(), 3, 2),
            "\033[38;2;1;2;3;48;2;7;8;9m▀\033[38;2;4;5;6;48;2;9;8;7m▀\033[0m\n"
            "\033[38;2;6;5;4m▀\033[38;2;3;2;255m▀\033[0m\n");
}

TEST(HalfBlocks, ColorsAreSetWhereTheyChange) {
  const std::vector<uint8_t> black(3 * 2 * 4);
  EXPECT_EQ(half_blocks(black.data(), 2, 4), "\033[38;2;0;0;0;48;2;0;0;0m▀▀▀▀\033[0m\n");
}

uint32_t big_endian(const std::string& bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = at; i < at + 4; ++i) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

// The rows of an 8-bit RGB PNG as they are before the filters are undone: a filter's number, pixels.
std::string filtered_rows(const std::string& png, size_t bytes) {
  std::string data;
  for (size_t at = 8; at + 12 <= png.size();) {
    const uint32_t length = big_endian(png, at);
    const auto* chunk = reinterpret_cast<const Bytef*>(png.data() + at + 4);
    EXPECT_EQ(crc32(0, chunk, 4 + length), big_endian(png, at + 8 + length));
    if (png.compare(at + 4, 4, "IDAT") == 0) data += png.substr(at + 8, length);
    at += 12 + length;
  }
  std::string rows(bytes, '\0');
  uLongf size = bytes;
  EXPECT_EQ(uncompress(reinterpret_cast<Bytef*>(rows.data()), &size,
                       reinterpret_cast<const Bytef*>(data.data()), data.size()),
            Z_OK);
  EXPECT_EQ(size, bytes);
  return rows;
}

TEST(Png, HoldsThePixels) {
  const TemporaryDirectory directory;
  const std::string path = directory.file("a.png");
  write_png(path, kTwoByThree.data(), 2, 3);
  std::ifstream stream(path, std::ios::binary);
  const std::string png{std::istreambuf_iterator<char>(stream), {}};
  ASSERT_EQ(png.substr(0, 8), "\x89PNG\r\n\x1a\n");
  ASSERT_EQ(png.substr(12, 4), "IHDR");
  EXPECT_EQ(big_endian(png, 16), 3u) << "width";
  EXPECT_EQ(big_endian(png, 20), 2u) << "height";
  EXPECT_EQ(png.substr(24, 5), std::string("\x08\x02\0\0\0", 5)) << "8 bits, RGB";
  const std::string rows = filtered_rows(png, 2 * (1 + 9));
  std::vector<uint8_t> above(9);
  for (size_t row = 0; row < 2; ++row) {
    std::vector<uint8_t> line(9);
    for (size_t i = 0; i < 9; ++i) {
      const int left = i < 3 ? 0 : line[i - 3], up = above[i], corner = i < 3 ? 0 : above[i - 3];
      const int gradient = left + up - corner;
      const int to_left = std::abs(gradient - left), to_up = std::abs(gradient - up);
      const int to_corner = std::abs(gradient - corner);
      const int paeth = to_left <= to_up && to_left <= to_corner ? left
                        : to_up <= to_corner                     ? up
                                                                 : corner;
      const int predicted[] = {0, left, up, (left + up) / 2, paeth};
      const int filter = rows[row * 10];
      ASSERT_LE(filter, 4);
      line[i] = static_cast<uint8_t>(rows[row * 10 + 1 + i] + predicted[filter]);
      EXPECT_EQ(line[i], kTwoByThree[row * 9 + i]) << "row " << row << ", byte " << i;
    }
    above = line;
  }
}

TEST(Png, WhatCannotBeWrittenIsAnError) {
  EXPECT_THROW(write_png("/dev/full", kTwoByThree.data(), 2, 3), Error);
  EXPECT_THROW(write_png("/dev/null", kTwoByThree.data(), 0, 3), Error);
  EXPECT_THROW(write_png("/dev/null", kTwoByThree.data(), int64_t{1} << 20, int64_t{1} << 20),
               Error);
}

}  // namespace
}  // namespace mocograd
