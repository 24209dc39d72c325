#include "io/png.h"

#include <cstdlib>
#include <memory>

#include "io/durable_file.h"
#include "tensor/error.h"

#define STB_IMAGE_WRITE_IMPLEMENTATION
#include <stb/stb_image_write.h>

namespace mocograd {

void write_png(const std::string& path, const uint8_t* rgb, int64_t height, int64_t width) {
  constexpr int64_t kMaxPixels = int64_t{1} << 28;  // stb counts bytes in int
  MOCO_CHECK(height >= 1 && width >= 1 && height <= kMaxPixels / width, "png: ", height, " × ",
             width, " pixels");
  int size = 0;
  const std::unique_ptr<unsigned char, decltype(&std::free)> png(
      stbi_write_png_to_mem(rgb, static_cast<int>(3 * width), static_cast<int>(width),
                            static_cast<int>(height), 3, &size),
      &std::free);
  if (!png) throw Error(path + ": no memory to compress the picture");
  DurableFile file(path);
  file.write(png.get(), static_cast<size_t>(size));
  file.commit();
}

}  // namespace mocograd
