// One panel of b: the columns of one tile, copied next to each other in the order in which the tile
// reads them.
#pragma once

#include "cpu/integers.h"
#include "cpu/ladder/register_tile.h"
#include "cpu/scratch.h"

namespace mocograd::MOCO_ISA {

struct RungPanel {
  const float* b;  // [K][width]
  int64_t first, width;
};

// Columns [first, first + kRungColumns), or what there is of them, of b: [K][N], copied to `target`.
MOCO_ALWAYS_INLINE RungPanel pack_panel(const float* b, int64_t K, int64_t N, int64_t first,
                                        float* target) {
  const int64_t width = smaller(kRungColumns, N - first);
  for (int64_t k = 0; k < K; ++k) {
    for (int64_t j = 0; j < width; ++j) target[k * width + j] = b[k * N + first + j];
  }
  return {target, first, width};
}

}  // namespace mocograd::MOCO_ISA
