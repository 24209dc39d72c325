// JPEG (ITU-T T.81): markers FF xx, most of them followed by a segment of u16 length (itself
// included) and content; after the header of a scan (SOS) come compressed data, in which FF is
// followed by 00 or by a restart marker.
//
// Taken: baseline, extended sequential and progressive frames of 8-bit samples with 1, 3 or 4
// components. Refused by name: 12 bits, lossless, hierarchical and arithmetic coding.
#include <algorithm>
#include <array>
#include <utility>

#include "data/image_check.h"

namespace mocograd {
namespace {

enum Marker : uint32_t {
  SOF0 = 0xC0,  // baseline
  SOF2 = 0xC2,  // progressive
  DHT = 0xC4,
  JPG = 0xC8,
  DAC = 0xCC,
  SOF15 = 0xCF,
  RST0 = 0xD0,
  RST7 = 0xD7,
  SOI = 0xD8,
  EOI = 0xD9,
  SOS = 0xDA,
  DQT = 0xDB,
  DRI = 0xDD,
  APP0 = 0xE0,
  APP14 = 0xEE,
  APP15 = 0xEF,
  COM = 0xFE,
};

constexpr int kTables = 4;      // of each kind
constexpr int kMaxScans = 100;  // progressive files have about ten; each may cost a whole pass

std::string name_of_marker(uint32_t marker) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  return {'F', 'F', kDigits[marker >> 4], kDigits[marker & 15]};
}

int64_t divide_up(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

struct Component {
  uint32_t id, across, down, quantizer;  // across, down: sampling factors
  bool scanned = false;
};

class JpegCheck {
 public:
  explicit JpegCheck(const ImageBytes& file) : file_(file) {}

  CheckedImage run() {
    if (file_.u16(0) != (0xFF00 | SOI)) file_.fail(0, "is no JPEG file");
    size_t at = 2;
    for (;;) {
      const size_t marker_at = at;
      if (file_.u8(at) != 0xFF) file_.fail(at, "a marker is missing");
      while (file_.u8(at) == 0xFF) ++at;
      const uint32_t marker = file_.u8(at++);
      if (marker == EOI) break;
      if (marker < SOF0 || (marker >= RST0 && marker <= SOI))
        file_.fail(marker_at, "marker ", name_of_marker(marker), " is out of place");
      const size_t length = file_.u16(at);
      if (length < 2) file_.fail(at, "a segment of length ", length);
      file_.range(at, length);
      segment(marker, at + 2, at + length);
      at += length;
      if (marker == SOS) at = skip_compressed(at);
    }
    check_complete(at - 2);
    const std::span<const uint8_t> all = file_.range(0, at);
    result_.for_decoder.assign(all.begin(), all.end());
    return std::move(result_);
  }

 private:
  void segment(uint32_t marker, size_t begin, size_t end) {
    if (marker == DHT) return huffman_tables(begin, end);
    if (marker == DQT) return quantization_tables(begin, end);
    if (marker == SOS) return scan_header(begin, end);
    if (marker == DRI) {
      if (end - begin != 2) file_.fail(begin, "a restart interval of ", end - begin, " bytes");
      restart_interval_ = file_.u16(begin);
      return;
    }
    if (marker == APP14) adobe_segment(begin, end);
    if ((marker >= APP0 && marker <= APP15) || marker == COM) return;
    if (marker >= SOF0 && marker <= SOF2) return frame_header(marker == SOF2, begin, end);
    if (marker <= SOF15 && marker != JPG && marker != DAC)
      file_.fail(begin, "a lossless, hierarchical or arithmetic-coded JPEG is not supported");
    file_.fail(begin, "segment ", name_of_marker(marker), " is not supported");
  }

  // Class and slot, sixteen counts of codes by length, the symbols.
  void huffman_tables(size_t at, size_t end) {
    while (at < end) {
      const uint32_t kind = file_.u8(at) >> 4, slot = file_.u8(at) & 15;
      if (kind > 1 || slot >= kTables) file_.fail(at, "there is no such Huffman table");
      if (end - at < 17) file_.fail(at, "a Huffman table runs beyond its segment");
      size_t codes = 0, space = 0;  // space: of the 2^16 words of 16 bits, those that are taken
      for (size_t bits = 1; bits <= 16; ++bits) {
        const size_t count = file_.u8(at + bits);
        codes += count;
        space += count << (16 - bits);
      }
      if (codes > 256) file_.fail(at, "a Huffman table of ", codes, " codes, 256 are possible");
      if (space > 1 << 16) file_.fail(at, "a Huffman table with more codes than words");
      if (end - at < 17 + codes) file_.fail(at, "a Huffman table runs beyond its segment");
      has_huffman_[kind][slot] = true;
      at += 17 + codes;
    }
  }

  void quantization_tables(size_t at, size_t end) {
    while (at < end) {
      const uint32_t wide = file_.u8(at) >> 4, slot = file_.u8(at) & 15;
      if (wide > 1 || slot >= kTables) file_.fail(at, "there is no such quantization table");
      const size_t bytes = 1 + 64 * (1 + wide);
      if (end - at < bytes) file_.fail(at, "a quantization table runs beyond its segment");
      has_quantizer_[slot] = true;
      at += bytes;
    }
  }

  // Precision, height, width, and of each component its id, sampling factors, quantization table.
  void frame_header(bool progressive, size_t at, size_t end) {
    if (!components_.empty()) file_.fail(at, "a second frame");
    if (end - at < 6) file_.fail(at, "a frame header of ", end - at, " bytes");
    if (file_.u8(at) != 8)
      file_.fail(at, file_.u8(at), "-bit samples are not supported, 8-bit are");
    result_.height = file_.u16(at + 1);
    result_.width = file_.u16(at + 3);
    check_image_size(file_, at + 1, result_.height, result_.width);
    const uint32_t count = file_.u8(at + 5);
    if (count != 1 && count != 3 && count != 4)
      file_.fail(at + 5, count, " components; 1, 3 and 4 are supported");
    if (end - at != 6 + 3 * count) file_.fail(at, "a frame header of ", end - at, " bytes");
    progressive_ = progressive;
    for (size_t c = at + 6; c < end; c += 3) {
      const uint32_t factors = file_.u8(c + 1);
      const Component component{file_.u8(c), factors >> 4, factors & 15, file_.u8(c + 2)};
      for (const uint32_t factor : {component.across, component.down}) {
        if (factor < 1 || factor > 4) file_.fail(c + 1, "a sampling factor of ", factor);
      }
      if (component.quantizer >= kTables) file_.fail(c + 2, "there is no such quantization table");
      components_.push_back(component);
      max_across_ = std::max(max_across_, component.across);
      max_down_ = std::max(max_down_, component.down);
    }
    for (const Component& component : components_) {
      if (max_across_ % component.across != 0 || max_down_ % component.down != 0)
        file_.fail(at + 6, "sampling factors whose ratio is no integer");
    }
    // A block of 8×8 samples takes at least a bit; the largest unit of interleaved blocks is 32×32
    // pixels and holds at least 8 of them.
    constexpr int64_t kPixelsPerByte = 1024;
    if (result_.height * result_.width > kPixelsPerByte * static_cast<int64_t>(file_.size()))
      file_.fail(at + 1, result_.width, "x", result_.height, " pixels cannot be in a file of ",
                 file_.size(), " bytes");
  }

  // The components with their Huffman tables, first and last coefficient, bits of approximation.
  void scan_header(size_t at, size_t end) {
    if (components_.empty()) file_.fail(at, "a scan before the frame header");
    if (++scans_ > kMaxScans) file_.fail(at, "more than ", kMaxScans, " scans");
    const uint32_t count = file_.u8(at);
    if (count < 1 || count > components_.size() || end - at != 4 + 2 * count)
      file_.fail(at, "a scan of ", count, " components in ", end - at, " bytes");
    const size_t bounds = at + 1 + 2 * count;
    const uint32_t first = file_.u8(bounds), last = file_.u8(bounds + 1);
    const uint32_t high = file_.u8(bounds + 2) >> 4, low = file_.u8(bounds + 2) & 15;
    if (progressive_ ? first > last || last > 63 || (first == 0) != (last == 0) || high > 13 ||
                           low > 13 || (first > 0 && count > 1)
                     : first != 0 || high != 0 || low != 0)
      file_.fail(bounds, "a scan of coefficients ", first, " to ", last, ", bits ", high, " to ",
                 low);
    const bool needs_dc = progressive_ ? first == 0 && high == 0 : true;
    const bool needs_ac = progressive_ ? first > 0 : true;
    scan_ = {};
    for (size_t c = at + 1; c < bounds; c += 2) {
      const auto component = std::find_if(components_.begin(), components_.end(),
                                          [&](const Component& x) { return x.id == file_.u8(c); });
      if (component == components_.end()) file_.fail(c, "there is no component ", file_.u8(c));
      const uint32_t dc = file_.u8(c + 1) >> 4, ac = file_.u8(c + 1) & 15;
      if (dc >= kTables || ac >= kTables || (needs_dc && !has_huffman_[0][dc]) ||
          (needs_ac && !has_huffman_[1][ac]))
        file_.fail(c + 1, "a Huffman table is missing");
      if (!has_quantizer_[component->quantizer]) file_.fail(c, "a quantization table is missing");
      component->scanned = true;
      scan_.push_back(*component);
    }
    if (result_.data_offset == 0) result_.data_offset = end;
  }

  // Returns where the marker after the compressed data is.
  size_t skip_compressed(size_t at) {
    const int64_t expected =
        restart_interval_ == 0 ? 0 : divide_up(units_of_scan(), restart_interval_) - 1;
    int64_t restarts = 0;
    for (;;) {
      const std::span<const uint8_t> rest = file_.range(at, file_.size() - at);
      at += static_cast<size_t>(std::find(rest.begin(), rest.end(), 0xFF) - rest.begin());
      const uint32_t code = file_.u8(at + 1);
      if (code >= RST0 && code <= RST7) {
        if (restarts == expected || code != RST0 + restarts % 8)
          file_.fail(at, "restart marker ", name_of_marker(code), " is out of place");
        ++restarts;
      } else if (code == 0xFF) {
        --at;  // a fill byte; the marker's own FF may be the next
      } else if (code != 0) {
        break;
      }
      at += 2;
    }
    if (restarts != expected)
      file_.fail(at, restarts, " restart markers in a scan of ", expected + 1, " intervals");
    return at;
  }

  // Interleaved components go in units of all their blocks, a single one block by block.
  int64_t units_of_scan() const {
    int64_t width = result_.width, height = result_.height;
    int64_t unit_width = 8 * max_across_, unit_height = 8 * max_down_;
    if (scan_.size() == 1) {
      width = divide_up(width * scan_[0].across, max_across_);
      height = divide_up(height * scan_[0].down, max_down_);
      unit_width = unit_height = 8;
    }
    return divide_up(width, unit_width) * divide_up(height, unit_height);
  }

  // "Adobe", version, flags, and the colour transform as the twelfth byte.
  void adobe_segment(size_t begin, size_t end) {
    constexpr std::array<uint8_t, 6> kTag = {'A', 'd', 'o', 'b', 'e', 0};
    if (end - begin < 12 || !std::ranges::equal(file_.range(begin, kTag.size()), kTag)) return;
    adobe_transform_ = static_cast<int>(file_.u8(begin + 11));
  }

  void check_complete(size_t eoi) const {
    if (components_.empty()) file_.fail(eoi, "there is no frame");
    for (const Component& component : components_) {
      if (!component.scanned) file_.fail(eoi, "component ", component.id, " is in no scan");
    }
    if (components_.size() == 4 && adobe_transform_ != 0 && adobe_transform_ != 2)
      file_.fail(eoi, "four components, and no Adobe segment that says they are CMYK or YCCK");
  }

  const ImageBytes& file_;
  CheckedImage result_;
  std::vector<Component> components_, scan_;  // scan_: those of the last scan
  uint32_t max_across_ = 1, max_down_ = 1;
  bool progressive_ = false;
  bool has_huffman_[2][kTables] = {}, has_quantizer_[kTables] = {};
  uint32_t restart_interval_ = 0;
  int scans_ = 0;
  int adobe_transform_ = -1;
};

}  // namespace

CheckedImage check_jpeg(const ImageBytes& file) {
  return JpegCheck(file).run();
}

void check_image_size(const ImageBytes& file, size_t offset, int64_t height, int64_t width) {
  if (height < 1 || width < 1 || height > kMaxImageSide || width > kMaxImageSide ||
      height * width > kMaxImagePixels)
    file.fail(offset, width, "x", height, " pixels; a side is 1 to ", kMaxImageSide,
              ", and a picture has at most ", kMaxImagePixels);
}

}  // namespace mocograd
