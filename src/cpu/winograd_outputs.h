// The last step of Winograd's convolution, y = Aᵀ M A tile by tile, and what is summed over y while it
// is in registers: the statistics of a forward pass, the gradient sums of a data gradient
// (batch_sums.h).
//
// A chunk of these sums is what a block of tiles and a group of the batch have in common. Blocks b and
// groups g both rise along the tiles, so b + g is a number of its own for each chunk, and those of one
// group follow each other.
#pragma once

#include "cpu/batch_sums.h"
#include "cpu/winograd_tiles.h"

namespace mocograd::MOCO_ISA {

// A tile's numbers of one vector of channels: where they are in y, and which sums they belong to.
struct TileOutput {
  int64_t at;       // of the tile's first pixel, in y
  int64_t channel;  // the vector's first
  int64_t group, chunk;
  bool first;  // of the chunk
};

// An epilogue makes Sums of each TileOutput: store(offset, value, corner) is called once for each
// pixel, offset from the tile's first, which is the corner and comes first; then leave().

// Stores alone.
template <class Stored>
struct StoreOnly {
  Stored* y;

  struct Sums {
    Stored* y;
    MOCO_ALWAYS_INLINE Sums(const StoreOnly& epilogue, const TileOutput& tile)
        : y(epilogue.y + tile.at) {}
    MOCO_ALWAYS_INLINE void store(int64_t offset, Vector value, [[maybe_unused]] bool corner) {
      MOCO_ISA::store(y + offset, value);
    }
    MOCO_ALWAYS_INLINE void leave() const {}
  };
};

// partials[chunk] = [m, Σ(y − m), Σ(y − m)²], C of each;  m: y in the chunk's first pixel
template <class Stored>
struct StoreWithStatistics {
  static constexpr int kSums = kStatisticsSums;
  Stored* y;
  float* partials;
  int64_t C;

  struct Sums {
    Stored* y;
    PieceStatistics<WideAccess<float>> of_tile;

    MOCO_ALWAYS_INLINE Sums(const StoreWithStatistics& epilogue, const TileOutput& tile)
        : y(epilogue.y + tile.at),
          of_tile(epilogue.partials + tile.chunk * kSums * epilogue.C + tile.channel, epilogue.C,
                  tile.first) {}
    MOCO_ALWAYS_INLINE void store(int64_t offset, Vector value, bool corner) {
      MOCO_ISA::store(y + offset, value);
      const Vector stored = load(y + offset);
      if (corner) of_tile.begin(stored);
      of_tile.add(stored);
    }
    MOCO_ALWAYS_INLINE void leave() const { of_tile.leave(); }
  };
};

// y = dz = dh·[h > 0];  partials[chunk] = [Σdz, Σdz·(x − mean_g)], C of each
template <class Stored>
struct StoreWithGradientSums {
  static constexpr int kSums = kGradientSums;
  Stored* y;
  float* partials;
  int64_t C;
  const Stored *h, *x;
  const float* mean;

  struct Sums {
    Stored* y;
    const Stored *h, *x;
    PieceGradientSums<WideAccess<float>> of_tile;

    MOCO_ALWAYS_INLINE Sums(const StoreWithGradientSums& epilogue, const TileOutput& tile)
        : y(epilogue.y + tile.at),
          h(epilogue.h + tile.at),
          x(epilogue.x + tile.at),
          of_tile(epilogue.partials + tile.chunk * kSums * epilogue.C + tile.channel, epilogue.C,
                  tile.first, load(epilogue.mean + tile.group * epilogue.C + tile.channel)) {}
    MOCO_ALWAYS_INLINE void store(int64_t offset, Vector value, [[maybe_unused]] bool corner) {
      MOCO_ISA::store(y + offset, masked(value, load(h + offset)));
      of_tile.add(load(y + offset), load(x + offset));
    }
    MOCO_ALWAYS_INLINE void leave() const { of_tile.leave(); }
  };
};

// Aᵀ m A of one tile and vector of channels: element e at m + e·stride; pixel (i, j) goes to offset
// i·row_stride + j·OC where it is among the `rows` and `columns` of the image; `whole`: all are.
template <class F, bool whole, class Epilogue>
[[gnu::noinline]] void output_tile(const float* m, int64_t stride, const Epilogue& epilogue,
                                   const TileOutput& tile, int64_t row_stride, int64_t OC,
                                   int64_t rows, int64_t columns) {
  constexpr int T = F::kTile, E = F::kElements;
  Vector half[T][E];
#pragma GCC unroll 9
  for (int j = 0; j < E; ++j) {
    Vector e[E], column[T];
#pragma GCC unroll 9
    for (int i = 0; i < E; ++i) e[i] = load(m + (i * E + j) * stride);
    F::output(e, column);
#pragma GCC unroll 8
    for (int i = 0; i < T; ++i) half[i][j] = column[i];
  }
  typename Epilogue::Sums sums(epilogue, tile);
#pragma GCC unroll 8
  for (int i = 0; i < T; ++i) {
    Vector row[T];
    F::output(half[i], row);
#pragma GCC unroll 8
    for (int j = 0; j < T; ++j) {
      if (whole || (i < rows && j < columns))
        sums.store(i * row_stride + j * OC, row[j], i == 0 && j == 0);
    }
  }
  sums.leave();
}

// The blocks and groups of a convolution's tiles.
template <class F>
struct TileChunks {
  TileGrid<F> grid;
  EvenParts blocks;
  int64_t group_tiles;

  MOCO_ALWAYS_INLINE TileChunks(const TileGrid<F>& grid, const EvenParts& blocks, int64_t groups)
      : grid(grid), blocks(blocks), group_tiles(grid.count / groups) {}

  MOCO_ALWAYS_INLINE int64_t groups() const { return grid.count / group_tiles; }
  MOCO_ALWAYS_INLINE int64_t count() const { return blocks.count + groups(); }
  // f(first chunk, chunks, pixels_of) for each group; pixels_of(k): of its chunk k.
  template <class Function>
  MOCO_ALWAYS_INLINE void for_each_group(const Function& f) const {
    for (int64_t g = 0; g < groups(); ++g) {
      const int64_t begin = g * group_tiles, end = begin + group_tiles;
      const int64_t first = blocks.part_of(begin), last = blocks.part_of(end - 1);
      f(g, first + g, last - first + 1, [=, this](int64_t k) {
        return grid.pixels_before(smaller(end, blocks.begin(first + k + 1))) -
               grid.pixels_before(larger(begin, blocks.begin(first + k)));
      });
    }
  }
};

// y of one block and `width` channels from `channel` on, from its M: [element][tile][width].
template <class F, class Epilogue>
void transform_outputs(const TileChunks<F>& chunks, int64_t block, const Epilogue& epilogue,
                       int64_t OC, int64_t channel, int64_t width, const float* m, int64_t stride) {
  const TileGrid<F>& grid = chunks.grid;
  const int64_t begin = chunks.blocks.begin(block), end = chunks.blocks.begin(block + 1);
  for (int64_t tile = begin; tile < end; ++tile) {
    const typename TileGrid<F>::Place place = grid.place(tile);
    const int64_t group = tile / chunks.group_tiles, at = grid.pixel(place) * OC + channel;
    const bool first = tile == begin || tile % chunks.group_tiles == 0;
    for (int64_t j = 0; j < width; j += kGroup, m += kGroup) {
      const TileOutput output{at + j, channel + j, group, block + group, first};
      if (grid.whole(place)) {
        output_tile<F, true>(m, stride, epilogue, output, grid.W * OC, OC, F::kTile, F::kTile);
      } else {
        output_tile<F, false>(m, stride, epilogue, output, grid.W * OC, OC, grid.H - place.h,
                              grid.W - place.w);
      }
    }
  }
}

}  // namespace mocograd::MOCO_ISA
