// Rung 3: image by image, the 9·C numbers that an output pixel reads are copied into a row of a
// matrix; the convolution is then the matrix product [H·W, 9·C] · [9·C, OC] of
// gemm_5_packing.cpp.
//
// Everything that makes a matrix product fast is had for the price of the copy, which is nine times
// as large as the image.
#include "cpu/integers.h"
#include "cpu/ladder/rungs.h"
#include "cpu/scratch.h"

namespace mocograd::MOCO_ISA {
namespace {

void copy_patches(const LadderConv& p, const float* image, float* row) {
  const size_t pixel_bytes = static_cast<size_t>(p.C) * sizeof(float);
  for (int64_t h = 0; h < p.H; ++h) {
    for (int64_t w = 0; w < p.W; ++w) {
      for (int64_t tap = 0; tap < 9; ++tap, row += p.C) {
        const int64_t ih = h - 1 + tap / 3, iw = w - 1 + tap % 3;
        if (ih < 0 || ih >= p.H || iw < 0 || iw >= p.W) {
          __builtin_memset(row, 0, pixel_bytes);
        } else {
          __builtin_memcpy(row, image + (ih * p.W + iw) * p.C, pixel_bytes);
        }
      }
    }
  }
}

}  // namespace

void conv_3_im2col(const LadderConv& p) {
  constexpr int kPatchSlot = 1;  // gemm_5_packing has slot 0
  const int64_t pixels = p.H * p.W;
  float* patches = scratch_of<float>(kPatchSlot, pixels * 9 * p.C);
  for (int64_t n = 0; n < p.N; ++n) {
    copy_patches(p, p.x + n * pixels * p.C, patches);
    gemm_5_packing({pixels, p.OC, 9 * p.C, patches, p.w, p.y + n * pixels * p.OC});
  }
}

}  // namespace mocograd::MOCO_ISA
