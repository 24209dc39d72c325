// Rung 4: no matrix. The rows of a tile are pointers to the pixels of x, nine for each output pixel,
// one a tap; where a tap lies outside of the image it points to a row of zeros.
//
// conv2d.cpp goes one step further: it copies a block of the input with its border of zeros, after
// which three taps of a row are one run of 3·C numbers.
#include "cpu/ladder/panel.h"
#include "cpu/ladder/rungs.h"

namespace mocograd::MOCO_ISA {
namespace {

// The pixels that `count` output pixels from `first` on read: pointer[tap · count + i].
void point_to_taps(const LadderConv& p, int64_t first, int64_t count, const float* zeros,
                   const float** pointer) {
  for (int64_t i = 0; i < count; ++i) {
    const int64_t pixel = first + i;
    const int64_t n = pixel / (p.H * p.W), h = pixel / p.W % p.H, w = pixel % p.W;
    for (int64_t tap = 0; tap < 9; ++tap) {
      const int64_t ih = h - 1 + tap / 3, iw = w - 1 + tap % 3;
      const bool inside = ih >= 0 && ih < p.H && iw >= 0 && iw < p.W;
      pointer[tap * count + i] = inside ? p.x + ((n * p.H + ih) * p.W + iw) * p.C : zeros;
    }
  }
}

}  // namespace

void conv_4_pointers(const LadderConv& p) {
  enum ScratchSlot { kPanelSlot, kZeroSlot };
  const int64_t K = 9 * p.C, pixels = p.N * p.H * p.W;
  float* panels = scratch_of<float>(kPanelSlot, ceil_div(p.OC, kRungColumns) * kRungColumns * K);
  for (int64_t oc = 0; oc < p.OC; oc += kRungColumns) pack_panel(p.w, K, p.OC, oc, panels + oc * K);
  float* zeros = scratch_of<float>(kZeroSlot, p.C);
  __builtin_memset(zeros, 0, static_cast<size_t>(p.C) * sizeof(float));

  for (int64_t pixel = 0; pixel < pixels;) {
    const bool whole = pixels - pixel >= kRungRows;
    const float* pointer[9 * kRungRows];
    point_to_taps(p, pixel, whole ? kRungRows : 1, zeros, pointer);
    for (int64_t oc = 0; oc < p.OC; oc += kRungColumns) {
      const int64_t width = smaller(kRungColumns, p.OC - oc);
      float* y = p.y + pixel * p.OC + oc;
      if (whole) {
        row_of_tiles<kRungRows>(pointer, 9, p.C, panels + oc * K, width, y, p.OC, width);
      } else {
        row_of_tiles<1>(pointer, 9, p.C, panels + oc * K, width, y, p.OC, width);
      }
    }
    pixel += whole ? kRungRows : 1;
  }
}

}  // namespace mocograd::MOCO_ISA
