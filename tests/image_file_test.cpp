// Image files: every kind decodes to the right pixels, and PNG files read back.
#include "data/image_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>

#include "image_files.h"
#include "png_maker.h"
#include "tensor/error.h"

namespace mocograd {
namespace {

const char* const kPngFixtures[] = {
    "rgb", "rgba", "gray", "palette", "bilevel", "palette-transparent", "gray-alpha"};
const char* const kJpegFixtures[] = {
    "baseline-444", "baseline-422",         "baseline-420",     "gray", "progressive-420",
    "optimized",    "progressive-restarts", "progressive-gray", "rgb",  "restarts",
    "cmyk",         "exif-orientation",     "one-pixel"};

std::string fixture(const std::string& name) {
  return "tests/fixtures/images/" + name;
}

std::string error_of_reading(const std::string& path) {
  try {
    read_image(path);
  } catch (const Error& error) {
    return error.what();
  }
  return "(no error)";
}

// The largest and the mean difference between two pictures of the same size.
void expect_near(const Image& read, const Image& expected, int largest, double mean) {
  ASSERT_EQ(read.height, expected.height);
  ASSERT_EQ(read.width, expected.width);
  ASSERT_EQ(read.rgb.size(), expected.rgb.size());
  double sum = 0;
  int worst = 0;
  for (size_t i = 0; i < read.rgb.size(); ++i) {
    const int difference = std::abs(read.rgb[i] - expected.rgb[i]);
    worst = std::max(worst, difference);
    sum += difference;
  }
  EXPECT_LE(worst, largest);
  EXPECT_LE(sum / static_cast<double>(read.rgb.size()), mean);
}

TEST(ImageFile, PngOfEveryColourDepthAndSizeDecodesExactly) {
  for (const auto& [color, depth] : kPngKinds) {
    for (const bool interlaced : {false, true}) {
      for (const auto& [width, height] :
           {std::pair{1, 1}, std::pair{3, 2}, std::pair{13, 7}, std::pair{5, 33}}) {
        const PngMaker png{width, height, depth, color, interlaced};
        const Image read = decode_image("made.png", png.file());
        EXPECT_EQ(read.height, height);
        EXPECT_EQ(read.width, width);
        EXPECT_EQ(read.rgb, png.expected())
            << "colour type " << color << ", " << depth << " bits, " << width << "x" << height
            << ", interlaced " << interlaced;
      }
    }
  }
}

TEST(ImageFile, PngDecodesToWhatPillowMakesOfIt) {
  for (const std::string name : kPngFixtures) {
    SCOPED_TRACE(name);
    expect_near(read_image(fixture(name + ".png")), read_image(fixture(name + ".png.expect.png")),
                0, 0);
  }
}

// Two decoders may round differently, and each interpolates colour of half the size its own way.
TEST(ImageFile, JpegDecodesToNearlyWhatPillowMakesOfIt) {
  for (const std::string name : kJpegFixtures) {
    SCOPED_TRACE(name);
    expect_near(read_image(fixture(name + ".jpg")), read_image(fixture(name + ".jpg.expect.png")),
                8, 1);
  }
}

TEST(ImageFile, TheContentTellsTheFormatNotTheName) {
  const TemporaryDirectory folder;
  put_file(folder.file("a.jpg"), file_bytes(fixture("rgb.png")));
  EXPECT_EQ(read_image(folder.file("a.jpg")).rgb, read_image(fixture("rgb.png")).rgb);
}

TEST(ImageFile, BytesAfterAJpegAreIgnored) {
  Bytes bytes = file_bytes(fixture("gray.jpg"));
  const Bytes second = file_bytes(fixture("rgb.jpg"));
  bytes.insert(bytes.end(), second.begin(), second.end());
  EXPECT_EQ(decode_image("two.jpg", bytes).rgb, read_image(fixture("gray.jpg")).rgb);
}

TEST(ImageFile, WhatCannotBeReadIsNamed) {
  const TemporaryDirectory folder;
  EXPECT_EQ(error_of_reading(folder.file("absent.png")),
            folder.file("absent.png") + ": cannot be opened: No such file or directory");
  EXPECT_EQ(error_of_reading(folder.path()), folder.path() + ": is not a regular file");
  ASSERT_EQ(mkfifo(folder.file("pipe.png").c_str(), 0600), 0);
  EXPECT_EQ(error_of_reading(folder.file("pipe.png")),
            folder.file("pipe.png") + ": is not a regular file");
  for (const std::string text : {"", "GIF89a;", "\x89PN", "\xFF"}) {
    put_file(folder.file("other.png"), Bytes(text.begin(), text.end()));
    EXPECT_EQ(error_of_reading(folder.file("other.png")),
              folder.file("other.png") + ": offset 0: is neither a PNG nor a JPEG file");
  }
}

TEST(WritePng, ReadsBack) {
  const TemporaryDirectory folder;
  for (const auto& [height, width] : {std::pair{1, 1}, std::pair{1, 300}, std::pair{17, 5}}) {
    const Image written = test_picture(height, width);
    write_png(folder.file("a.png"), written);
    const Image read = read_image(folder.file("a.png"));
    EXPECT_EQ(read.height, height);
    EXPECT_EQ(read.width, width);
    EXPECT_EQ(read.rgb, written.rgb);
  }
}

TEST(WritePng, RefusesWhatIsNoPicture) {
  const TemporaryDirectory folder;
  EXPECT_THROW(write_png(folder.file("a.png"), {2, 2, Bytes(11)}), Error);
  EXPECT_THROW(write_png(folder.file("a.png"), {0, 2, {}}), Error);
  EXPECT_THROW(write_png(folder.file("absent/a.png"), test_picture(2, 2)), Error);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace mocograd
