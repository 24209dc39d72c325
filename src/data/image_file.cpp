#include "data/image_file.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>

#include "data/image_check.h"
#include "io/input_file.h"
#include "io/png.h"

// stb_image lives in this file alone. Memory that it asks for comes zeroed: it leaves unwritten what
// damaged data do not reach, and the same file has to decode to the same pixels.
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_NO_STDIO
#define STBI_MAX_DIMENSIONS 16384
#define STBI_MALLOC(bytes) std::calloc(bytes, 1)
#define STBI_REALLOC(memory, bytes) std::realloc(memory, bytes)
#define STBI_FREE(memory) std::free(memory)
#include <stb/stb_image.h>

namespace mocograd {
namespace {

static_assert(STBI_MAX_DIMENSIONS == kMaxImageSide);

constexpr uint64_t kMaxFileBytes = uint64_t{1} << 30;  // stb_image counts in int
constexpr std::array<uint8_t, 8> kPngSignature = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
constexpr std::array<uint8_t, 3> kJpegSignature = {0xFF, 0xD8, 0xFF};

bool begins_with(std::span<const uint8_t> bytes, std::span<const uint8_t> signature) {
  return bytes.size() >= signature.size() &&
         std::ranges::equal(bytes.first(signature.size()), signature);
}

}  // namespace

Image read_image(const std::string& path) {
  InputFile file(path);
  if (file.size() > kMaxFileBytes) file.fail("is larger than an image may be (1 GiB)");
  std::vector<uint8_t> bytes(file.size());
  file.read(bytes.data(), bytes.size());
  return decode_image(path, bytes);
}

Image decode_image(const std::string& name, std::span<const uint8_t> bytes) {
  const ImageBytes file(name, bytes);
  const bool png = begins_with(bytes, kPngSignature);
  if (!png && !begins_with(bytes, kJpegSignature)) file.fail(0, "is neither a PNG nor a JPEG file");
  const CheckedImage checked = png ? check_png(file) : check_jpeg(file);

  int width = 0, height = 0, channels = 0;
  const std::unique_ptr<stbi_uc, decltype(&std::free)> pixels(
      stbi_load_from_memory(checked.for_decoder.data(),
                            static_cast<int>(checked.for_decoder.size()), &width, &height,
                            &channels, STBI_rgb),
      &std::free);
  if (!pixels)
    file.fail(checked.data_offset, "the compressed pixels are damaged: ", stbi_failure_reason());
  MOCO_CHECK(width == checked.width && height == checked.height, name, ": decoded to ", width, "x",
             height, " pixels, ", checked.width, "x", checked.height, " declared");
  Image image{checked.height, checked.width, {}};
  image.rgb.assign(pixels.get(), pixels.get() + 3 * image.height * image.width);
  return image;
}

void write_png(const std::string& path, const Image& image) {
  MOCO_CHECK(static_cast<int64_t>(image.rgb.size()) == 3 * image.height * image.width,
             "write_png: ", image.rgb.size(), " bytes of RGB for ", image.width, "x", image.height,
             " pixels");
  write_png(path, image.rgb.data(), image.height, image.width);
}

}  // namespace mocograd
