// ParityClass: how the data gradient of a strided convolution falls into convolutions of stride 1.
//
//   dx[h] = Σ over kh, oh with oh·s − p + kh = h of dy[oh] · w[kh]          s: stride, p: padding
//
// Only taps kh ≡ h + p (mod s) take part. So the rows h of dx fall into s classes by (h + p) mod s,
// and each class is a correlation of stride 1 of dy with the taps of its own residue, flipped: no
// work is spent on the zeros between dy's rows. Columns likewise.
#pragma once

#include "tensor/backend.h"

namespace mocograd {

// One direction of a class: h = first + stride·i, i < count, reads the rows of dy
// offset + i, …, offset + i + taps − 1, and tap j of them meets w's tap(j).
struct ParityClass {
  int64_t first, count, residue, taps, offset, stride;

  // index: which class, in [0, stride); size: of dx; kernel: of w
  MOCO_ALWAYS_INLINE ParityClass(int64_t index, int64_t size, int64_t kernel, Conv2dConfig config)
      : residue(index), stride(config.stride) {
    const int64_t s = stride;
    first = ((residue - config.padding) % s + s) % s;
    count = first < size ? (size - first + s - 1) / s : 0;
    taps = residue < kernel ? (kernel - residue + s - 1) / s : 0;
    offset = (first + config.padding - residue) / s - (taps - 1);
  }
};

}  // namespace mocograd
