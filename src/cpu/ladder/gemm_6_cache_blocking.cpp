// Rung 6: k is cut into slices, so short that a panel of b stays in the L1 cache, and the rows into
// blocks, so few that their slice, copied together, stays in L2. Then all panels meet the block, and
// each adds to its tile of c.
//
// A number that comes from memory now serves a whole block of tiles, a panel that comes from L2 all
// rows of the block. The copy matters beside its size: rows of a that are a power of two apart
// would share a few lines of L1.
#include "cpu/ladder/panel.h"
#include "cpu/ladder/rungs.h"

namespace mocograd::MOCO_ISA {
namespace {

constexpr int64_t kSlice = 256;                 // k: a panel is 32 KiB with AVX-512
constexpr int64_t kBlockRows = 16 * kRungRows;  // of a

// [rows][K] from rows that are lda apart
void copy_block(const float* a, int64_t lda, int64_t rows, int64_t K, float* target) {
  for (int64_t m = 0; m < rows; ++m)
    __builtin_memcpy(target + m * K, a + m * lda, static_cast<size_t>(K) * sizeof(float));
}

}  // namespace

void gemm_6_cache_blocking(const LadderProduct& p) {
  const size_t columns = static_cast<size_t>(ceil_div(p.N, kRungColumns) * kRungColumns);
  float* panels = static_cast<float*>(scratch(0, columns * kSlice * sizeof(float)));
  float* block = static_cast<float*>(scratch(1, kBlockRows * kSlice * sizeof(float)));
  for (int64_t k = 0; k < p.K; k += kSlice) {
    const int64_t K = smaller(kSlice, p.K - k);
    for (int64_t n = 0; n < p.N; n += kRungColumns)
      pack_panel(p.b + k * p.N, K, p.N, n, panels + n * K);
    for (int64_t m = 0; m < p.M; m += kBlockRows) {
      const int64_t rows = smaller(kBlockRows, p.M - m);
      copy_block(p.a + m * p.K + k, p.K, rows, K, block);
      for (int64_t n = 0; n < p.N; n += kRungColumns) {
        const int64_t width = smaller(kRungColumns, p.N - n);
        tiles_of_matrix(block, K, rows, K, panels + n * K, width, p.c + m * p.N + n, p.N, width,
                        k > 0);
      }
    }
  }
}

}  // namespace mocograd::MOCO_ISA
