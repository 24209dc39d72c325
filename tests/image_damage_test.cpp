// Damaged image files: every one is an Error that names file and offset, or decodes to a picture of
// the size that it declares, the same one each time; and nothing is read or written out of bounds
// (run it under AddressSanitizer: make asan).
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>

#include "data/image_check.h"
#include "image_files.h"
#include "png_maker.h"
#include "tensor/random.h"

namespace mocograd {
namespace {

constexpr int kMutants = 20000;  // of each format

const char* const kJpegs[] = {"baseline-420", "progressive-420",      "restarts", "gray",
                              "cmyk",         "progressive-restarts", "one-pixel"};

Bytes jpeg(const std::string& name) {
  return file_bytes("tests/fixtures/images/" + name + ".jpg");
}

// What decoding says: "" where it makes a picture, which is then of a possible size.
std::string error_of(const Bytes& bytes, Image* decoded = nullptr) {
  try {
    const Image image = decode_image("F", bytes);
    EXPECT_TRUE(image.height >= 1 && image.height <= kMaxImageSide);
    EXPECT_TRUE(image.width >= 1 && image.width <= kMaxImageSide);
    EXPECT_EQ(static_cast<int64_t>(image.rgb.size()), 3 * image.height * image.width);
    if (decoded) *decoded = image;
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

bool names_file_and_offset(const std::string& error) {
  const std::string head = "F: offset ";
  const size_t digits = error.rfind(head, 0) == 0 ? head.size() : std::string::npos;
  const size_t colon = error.find_first_not_of("0123456789", digits);
  return colon != std::string::npos && colon > digits && error.compare(colon, 2, ": ") == 0 &&
         colon + 2 < error.size() && error.find('\n') == std::string::npos;
}

void expect_refused(const Bytes& bytes, const std::string& wrong) {
  const std::string error = error_of(bytes);
  EXPECT_TRUE(names_file_and_offset(error)) << "'" << error << "'";
  EXPECT_NE(error.find(wrong), std::string::npos) << error << "\n  does not say: " << wrong;
}

Bytes with_random_flips(Bytes bytes, RandomStream& random) {
  for (int64_t flips = 1 + random.below(3); flips > 0; --flips) {
    const size_t at = static_cast<size_t>(random.below(static_cast<int64_t>(bytes.size())));
    bytes[at] = static_cast<uint8_t>(bytes[at] ^ (1 + random.below(255)));
  }
  return bytes;
}

// ---- at random -------------------------------------------------------------------------------------

TEST(DamagedImage, EveryTruncationIsRefused) {
  std::vector<Bytes> files;
  for (const std::string name : kJpegs) files.push_back(jpeg(name));
  for (const auto& [color, depth] : kPngKinds) files.push_back(PngMaker{7, 5, depth, color}.file());
  for (const Bytes& file : files) {
    ASSERT_EQ(error_of(file), "");
    for (size_t length = 0; length < file.size(); ++length) {
      const std::string error =
          error_of(Bytes(file.begin(), file.begin() + static_cast<int>(length)));
      ASSERT_TRUE(names_file_and_offset(error)) << length << " bytes: '" << error << "'";
    }
  }
}

TEST(DamagedImage, JpegWithFlippedBytes) {
  std::vector<Bytes> files;
  for (const std::string name : kJpegs) files.push_back(jpeg(name));
  RandomStream random(0, Purpose::test);
  int refused = 0;
  for (int i = 0; i < kMutants; ++i) {
    const Bytes mutant = with_random_flips(files[static_cast<size_t>(i) % files.size()], random);
    Image first, second;
    const std::string error = error_of(mutant, &first);
    EXPECT_EQ(error_of(mutant, &second), error);
    EXPECT_EQ(first.rgb, second.rgb);
    refused += !error.empty();
    ASSERT_TRUE(error.empty() || names_file_and_offset(error)) << "mutant " << i << ": " << error;
  }
  EXPECT_GT(refused, kMutants / 4);
  EXPECT_LT(refused, kMutants);
}

// Every byte of a PNG file is under a checksum, so none of them can change unnoticed.
TEST(DamagedImage, PngWithFlippedBytesIsAlwaysRefused) {
  std::vector<Bytes> files;
  for (const auto& [color, depth] : kPngKinds) files.push_back(PngMaker{7, 5, depth, color}.file());
  RandomStream random(0, Purpose::test, 1);
  for (int i = 0; i < kMutants; ++i) {
    const Bytes& file = files[static_cast<size_t>(i) % files.size()];
    const Bytes mutant = with_random_flips(file, random);
    if (mutant == file) continue;
    const std::string error = error_of(mutant);
    ASSERT_TRUE(names_file_and_offset(error)) << "mutant " << i << ": '" << error << "'";
  }
}

// The same with checksums made anew, as an attacker would.
TEST(DamagedImage, PngWithFlippedContent) {
  RandomStream random(0, Purpose::test, 2);
  int decoded = 0;
  for (int i = 0; i < kMutants; ++i) {
    const auto& [color, depth] = kPngKinds[static_cast<size_t>(i) % std::size(kPngKinds)];
    const PngMaker png{7, 5, depth, color, i % 2 == 0};
    Bytes header = png.header(), rows = png.rows(), palette = png.palette();
    if (i % 4 == 0) {
      const Bytes content = with_random_flips(Bytes(header.begin() + 8, header.end() - 4), random);
      header = png_chunk("IHDR", content);
    }
    if (i % 4 != 0) rows = with_random_flips(rows, random);
    if (i % 4 == 1) palette = png_chunk("PLTE", {1, 2, 3});
    Bytes stream = zlib_stream(rows);
    if (i % 4 == 2) stream = with_random_flips(stream, random);
    const std::string error =
        error_of(joined({PngMaker::signature(), header, color == 3 ? palette : Bytes(),
                         png_chunk("IDAT", stream), png_chunk("IEND", {})}));
    decoded += error.empty();
    ASSERT_TRUE(error.empty() || names_file_and_offset(error)) << "mutant " << i << ": " << error;
  }
  EXPECT_GT(decoded, kMutants / 10);
}

// ---- rule by rule: JPEG ----------------------------------------------------------------------------

// Where a segment begins: at the FF of its first marker.
size_t segment(const Bytes& file, uint8_t marker) {
  size_t at = 2;
  while (file[at + 1] != marker) at += 2 + static_cast<size_t>(file[at + 2] << 8 | file[at + 3]);
  return at;
}

// The file with some bytes of a segment replaced; offset 4 is where its content begins.
Bytes edited(Bytes file, uint8_t marker, size_t offset, const Bytes& bytes) {
  std::copy(bytes.begin(), bytes.end(),
            file.begin() + static_cast<std::ptrdiff_t>(segment(file, marker) + offset));
  return file;
}

Bytes without(Bytes file, uint8_t marker) {
  const size_t at = segment(file, marker);
  const size_t length = 2 + static_cast<size_t>(file[at + 2] << 8 | file[at + 3]);
  file.erase(file.begin() + static_cast<std::ptrdiff_t>(at),
             file.begin() + static_cast<std::ptrdiff_t>(at + length));
  return file;
}

// A segment put in before the first marker of that kind.
Bytes with_segment(Bytes file, uint8_t before, const Bytes& segment_bytes) {
  file.insert(file.begin() + static_cast<std::ptrdiff_t>(segment(file, before)),
              segment_bytes.begin(), segment_bytes.end());
  return file;
}

constexpr uint8_t kSof = 0xC0, kDht = 0xC4, kSos = 0xDA, kDqt = 0xDB, kDri = 0xDD, kAdobe = 0xEE;

TEST(DamagedImage, HuffmanTablesThatOverflowTheDecoder) {
  // 16 × 255 codes, as stb_image 2.27 takes them, and its bytes of symbols to go with them.
  Bytes table = {0xFF, kDht, 0x10, 0x03, 0x00};
  table.insert(table.end(), 16, 255);
  table.insert(table.end(), 0x1003 - 2 - 17, 1);
  expect_refused(with_segment(jpeg("gray"), kDht, table), "a Huffman table of 4080 codes");
  expect_refused(edited(jpeg("gray"), kDht, 5, {3}), "more codes than words");
  expect_refused(edited(jpeg("gray"), kDht, 4, {0x20}), "no such Huffman table");
  expect_refused(edited(jpeg("gray"), kDht, 20, {100}), "runs beyond its segment");
}

TEST(DamagedImage, EighteenBytesThatAskForHundredsOfMegabytes) {
  const Bytes file = {0xFF, 0xD8, 0xFF, 0xC0, 0,    11, 8,    0x3F, 0xFF,
                      0x10, 0,    1,    1,    0x11, 0,  0xFF, 0xD9, 0};
  expect_refused(file, "4096x16383 pixels cannot be in a file of 18 bytes");
  rusage before = {}, after = {};
  getrusage(RUSAGE_SELF, &before);
  for (const auto& [width, height] :
       {std::pair{16384, 4096}, std::pair{16384, 16384}, std::pair{1 << 30, 2}, std::pair{0, 5}})
    EXPECT_TRUE(names_file_and_offset(
        error_of(joined({PngMaker::signature(), PngMaker{width, height, 16, 6}.header(),
                         png_chunk("IDAT", zlib_stream(Bytes(100))), png_chunk("IEND", {})}))));
  getrusage(RUSAGE_SELF, &after);
  EXPECT_LT(after.ru_maxrss - before.ru_maxrss, 32 * 1024) << "kilobytes";
}

TEST(DamagedImage, JpegRules) {
  const Bytes color = jpeg("baseline-420"), gray = jpeg("gray"),
              progressive = jpeg("progressive-420");
  expect_refused(without(gray, kDqt), "a quantization table is missing");
  expect_refused(without(gray, kDht), "a Huffman table is missing");
  expect_refused(without(gray, kSof), "a scan before the frame header");
  expect_refused({0xFF, 0xD8, 0xFF, 0xD9}, "there is no frame");
  expect_refused(edited(gray, kDqt, 4, {0x04}), "no such quantization table");
  expect_refused(edited(gray, kDqt, 4, {0x10}), "runs beyond its segment");
  expect_refused(edited(gray, kSof, 4, {12}), "12-bit samples");
  expect_refused(edited(gray, kSof, 5, {0, 0}), "37x0 pixels");
  expect_refused(edited(gray, kSof, 5, {0x7F, 0xFF}), "37x32767 pixels");
  expect_refused(edited(gray, kSof, 9, {2}), "2 components");
  expect_refused(edited(gray, kSof, 9, {3}), "a frame header of 9 bytes");
  expect_refused(edited(gray, kSof, 11, {0x51}), "a sampling factor of 5");
  expect_refused(edited(color, kSof, 11, {0x33, 0, 2, 0x22}), "whose ratio is no integer");
  expect_refused(edited(gray, kSof, 1, {0xC3}), "lossless");
  expect_refused(edited(gray, kSof, 1, {0xC9}), "arithmetic-coded");
  expect_refused(edited(gray, kSof, 1, {0xDC}), "segment FFDC is not supported");
  expect_refused(edited(gray, kSof, 2, {0, 1}), "a segment of length 1");
  expect_refused(edited(gray, kSof, 0, {0}), "a marker is missing");
  expect_refused(edited(gray, kSof, 1, {0xD8}), "marker FFD8 is out of place");
  expect_refused(with_segment(gray, kSos, {0xFF, 0xC0, 0, 8, 8, 0, 1, 0, 1, 1}), "a second frame");
  expect_refused(edited(gray, kSos, 4, {2}), "a scan of 2 components");
  expect_refused(edited(gray, kSos, 5, {99}), "there is no component 99");
  expect_refused(edited(gray, kSos, 7, {1}), "a scan of coefficients 1 to 63");
  expect_refused(edited(progressive, kSos, 12, {5}), "a scan of coefficients 0 to 5");
  expect_refused(without(jpeg("cmyk"), kAdobe), "no Adobe segment");
  expect_refused(without(jpeg("restarts"), kDri), "restart marker FFD0 is out of place");
  expect_refused(edited(jpeg("restarts"), kDri, 4, {0, 1}), "restart markers in a scan of");
  expect_refused(edited(jpeg("restarts"), kDri, 2, {0, 3}), "a restart interval of 1 bytes");
}

TEST(DamagedImage, AJpegWhoseScansLeaveOutAComponent) {
  const Bytes color = jpeg("baseline-444");
  const size_t scan = segment(color, kSos);
  Bytes file(color.begin(), color.begin() + static_cast<std::ptrdiff_t>(scan));
  const Bytes luma_only = {0xFF, kSos, 0, 8, 1, 1, 0x00, 0, 63, 0, 0x55, 0x55, 0xFF, 0xD9};
  file.insert(file.end(), luma_only.begin(), luma_only.end());
  expect_refused(file, "component 2 is in no scan");
}

TEST(DamagedImage, AJpegOfAThousandScans) {
  Bytes file = jpeg("gray");
  const size_t scan = segment(file, kSos);
  const Bytes again(file.begin() + static_cast<std::ptrdiff_t>(scan), file.end() - 2);
  for (int i = 0; i < 1000; ++i) file.insert(file.end() - 2, again.begin(), again.end());
  expect_refused(file, "more than 100 scans");
}

// ---- rule by rule: PNG -----------------------------------------------------------------------------

TEST(DamagedImage, PngRules) {
  const PngMaker rgb{7, 5, 8, 2}, indexed{7, 5, 8, 3};
  const Bytes signature = PngMaker::signature(), header = rgb.header(), end = png_chunk("IEND", {});
  const Bytes rows = rgb.rows(), stream = zlib_stream(rows), data = png_chunk("IDAT", stream);
  const Bytes text = png_chunk("tEXt", {'k', 0, 'v'});
  ASSERT_EQ(error_of(joined({signature, header, text, data, text, end})), "");

  expect_refused(joined({signature, data, header, end}), "the first chunk is not IHDR");
  expect_refused(joined({signature, header, header, data, end}), "unknown or out of place");
  expect_refused(joined({signature, header, png_chunk("ABCD", {}), data, end}), "unknown");
  expect_refused(joined({signature, header, end}), "there is no IDAT chunk");
  expect_refused(joined({signature, header, data}), "the file ends too early");
  expect_refused(joined({signature, header, data, png_chunk("IEND", {0})}), "IEND is not empty");
  expect_refused(joined({signature, header, data, end, {0}}), "bytes after IEND");
  expect_refused(joined({signature, header, png_chunk("ab1d", {}), data, end}), "not four letters");
  expect_refused(joined({signature, png_chunk("IHDR", Bytes(12)), data, end}), "IHDR has 12 bytes");

  const Bytes first_half(stream.begin(), stream.begin() + 9),
      rest(stream.begin() + 9, stream.end());
  const Bytes one = png_chunk("IDAT", first_half), two = png_chunk("IDAT", rest);
  const Bytes none = png_chunk("IDAT", {});
  EXPECT_EQ(error_of(joined({signature, header, none, one, none, two, none, end})), "");
  expect_refused(joined({signature, header, one, text, two, end}), "not one after the other");
  expect_refused(joined({signature, header, one, end}), "the pixels end after");
  expect_refused(joined({signature, header, two, end}), "the compressed pixels are damaged");

  Bytes shorter = rows, longer = rows, filter = rows;
  shorter.pop_back();
  longer.push_back(0);
  filter[0] = 5;
  const auto with_rows = [&](const Bytes& content) {
    return joined({signature, header, png_chunk("IDAT", zlib_stream(content)), end});
  };
  expect_refused(with_rows(shorter), "the pixels end after 109 bytes of 110");
  expect_refused(with_rows(longer), "more than the 110 bytes");
  expect_refused(with_rows(Bytes(10'000'000)), "more than the 110 bytes");
  expect_refused(with_rows(filter), "the compressed pixels are damaged: invalid filter");

  const Bytes pixels = png_chunk("IDAT", zlib_stream(indexed.rows()));
  const Bytes palette = indexed.palette();
  expect_refused(joined({signature, indexed.header(), pixels, end}), "there is no palette");
  expect_refused(joined({signature, indexed.header(), palette, palette, pixels, end}), "PLTE");
  expect_refused(joined({signature, indexed.header(), png_chunk("PLTE", {1, 2}), pixels, end}),
                 "a palette of 2 bytes");
  for (const auto& [color, depth] : {std::pair{2, 4}, std::pair{3, 16}, std::pair{5, 8},
                                     std::pair{1, 8}, std::pair{7, 8}, std::pair{0, 3}})
    expect_refused(joined({signature, PngMaker{7, 5, depth, color}.header(), data, end}),
                   "colour type " + std::to_string(color) + " with " + std::to_string(depth));
}

TEST(DamagedImage, ColoursBeyondThePaletteAreBlack) {
  const PngMaker png{7, 5, 8, 3};
  ASSERT_EQ(error_of(png.file()), "");  // leaves a palette on the stack, not to be seen again
  const Image image = decode_image(
      "F", joined({PngMaker::signature(), png.header(), png_chunk("PLTE", {9, 8, 7}),
                   png_chunk("IDAT", zlib_stream(png.rows())), png_chunk("IEND", {})}));
  int black = 0;
  for (auto pixel = image.rgb.begin(); pixel != image.rgb.end(); pixel += 3) {
    const Bytes rgb(pixel, pixel + 3);
    EXPECT_TRUE(rgb == (Bytes{9, 8, 7}) || rgb == Bytes(3)) << testing::PrintToString(rgb);
    black += rgb == Bytes(3);
  }
  EXPECT_EQ(black, 33);
}

}  // namespace
}  // namespace mocograd
