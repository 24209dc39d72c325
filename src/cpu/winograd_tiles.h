// The tiles that a batch of images is cut into for Winograd, and the transform of their patches.
//
// A tile is F::kTile pixels square of what is written; its patch are the F::kPatch² pixels that it is
// computed from (winograd_transforms.h). What lies outside of the image is zero in a patch and is left
// out of a tile, so the sides of an image need not be multiples of a tile's. Tiles are numbered by
// image, row and column.
#pragma once

#include "cpu/integers.h"
#include "cpu/scratch.h"
#include "cpu/winograd_transforms.h"

namespace mocograd::MOCO_ISA {

constexpr int64_t kPanel =
    2 * kGroup;  // output channels that the products are computed for at once
template <class F>
constexpr int kProducts = F::kElements* F::kElements;

// A row of a patch above or below the image.
template <class F, class Stored>
MOCO_ALWAYS_INLINE const Stored* scratch_zeros(int slot, int64_t C) {
  Stored* zeros = scratch_of<Stored>(slot, F::kPatch * C);
  __builtin_memset(zeros, 0, static_cast<size_t>(F::kPatch * C) * sizeof(Stored));
  return zeros;
}

template <class F>
struct TileGrid {
  int64_t read_H, read_W;  // of the images that patches are in
  int64_t H, W;            // of those that tiles are in
  int64_t rows, columns, count;

  MOCO_ALWAYS_INLINE TileGrid(const Tensor& read, const Tensor& written)
      : read_H(read.dim(1)),
        read_W(read.dim(2)),
        H(written.dim(1)),
        W(written.dim(2)),
        rows(ceil_div(H, F::kTile)),
        columns(ceil_div(W, F::kTile)),
        count(written.dim(0) * rows * columns) {}

  // A tile's first pixel.
  struct Place {
    int64_t image, h, w;
  };
  MOCO_ALWAYS_INLINE Place place(int64_t tile) const {
    return {tile / (rows * columns), tile / columns % rows * F::kTile, tile % columns * F::kTile};
  }
  MOCO_ALWAYS_INLINE int64_t pixel(const Place& p) const { return (p.image * H + p.h) * W + p.w; }
  // How many pixels the tiles before this one have.
  MOCO_ALWAYS_INLINE int64_t pixels_before(int64_t tile) const {
    const Place p = place(tile);
    return (p.image * H + p.h) * W + smaller(F::kTile, H - p.h) * p.w;
  }
  // Whether all of the tile's pixels are in the image.
  MOCO_ALWAYS_INLINE bool whole(const Place& p) const {
    return p.h + F::kTile <= H && p.w + F::kTile <= W;
  }
};

// The distance between the elements of `numel` transformed numbers each, padded so that it is no power
// of two, which would send all of them to one set of the cache.
MOCO_ALWAYS_INLINE int64_t element_stride(int64_t numel) {
  return numel + kGroup;
}

// A patch's rows, the pixels of each `stride` numbers apart, of which [first, last) are in the image.
template <class F, class Stored>
struct Patch {
  const Stored* row[F::kPatch];
  int64_t stride, first, last;
};

// Of Bᵀ x B for one group of channels the rows of elements [pass·E/3, (pass + 1)·E/3), E = kElements:
// a third, so that they stay in registers. `inside`: all columns of the patch are in the image.
template <class F, bool inside, int pass, class Stored>
MOCO_ALWAYS_INLINE void transform_third(const Patch<F, Stored>& patch, int64_t c, float* v,
                                        int64_t stride) {
  constexpr int P = F::kPatch, E = F::kElements, kRows = E / 3, kFirstRow = pass * kRows;
  Vector half[kRows][P];
#pragma GCC unroll 9
  for (int j = 0; j < P; ++j) {
    Vector x[P], column[E];
    const bool read = inside || (j >= patch.first && j < patch.last);
#pragma GCC unroll 9
    for (int i = 0; i < P; ++i) x[i] = read ? load(patch.row[i] + j * patch.stride + c) : Vector{};
    F::input(x, column);
#pragma GCC unroll 3
    for (int i = 0; i < kRows; ++i) half[i][j] = column[kFirstRow + i];
  }
#pragma GCC unroll 3
  for (int i = 0; i < kRows; ++i) {
    Vector e[E];
    F::input(half[i], e);
#pragma GCC unroll 9
    for (int j = 0; j < E; ++j) store(v + ((kFirstRow + i) * E + j) * stride, e[j]);
  }
}

// All of one patch: its group g goes to v + g·group_stride, element e of it e·stride further.
template <class F, bool inside, class Stored>
[[gnu::noinline]] void transform_patch(const Patch<F, Stored>& patch, int64_t groups,
                                       int64_t group_stride, float* v, int64_t stride) {
  for (int64_t group = 0; group < groups; ++group, v += group_stride) {
    transform_third<F, inside, 0>(patch, group * kGroup, v, stride);
    transform_third<F, inside, 1>(patch, group * kGroup, v, stride);
    transform_third<F, inside, 2>(patch, group * kGroup, v, stride);
  }
}

// V = Bᵀ x B of the tiles [begin, end): element e at v + e·stride, [group][tile][channel], so that
// the products read it in order. x: the first of the groups' channels, of C, of pixel 0.
template <class F, class Stored>
MOCO_ALWAYS_INLINE void transform_patches(const TileGrid<F>& grid, const Stored* x, int64_t C,
                                          int64_t groups, int64_t begin, int64_t end,
                                          const Stored* zeros, float* v, int64_t stride) {
  const int64_t group_stride = (end - begin) * kGroup;
  for (int64_t tile = begin; tile < end; ++tile, v += kGroup) {
    const typename TileGrid<F>::Place place = grid.place(tile);
    const int64_t top = place.h / F::kTile * F::kStep + F::kFirst;
    const int64_t left = place.w / F::kTile * F::kStep + F::kFirst;
    const Stored* corner = x + ((place.image * grid.read_H + top) * grid.read_W + left) * C;
    Patch<F, Stored> patch{{}, C, left < 0 ? -left : 0, smaller(F::kPatch, grid.read_W - left)};
    for (int i = 0; i < F::kPatch; ++i) {
      const int64_t h = top + i;
      patch.row[i] = h >= 0 && h < grid.read_H ? corner + i * grid.read_W * C : zeros;
    }
    if (patch.first == 0 && patch.last == F::kPatch) {
      transform_patch<F, true>(patch, groups, group_stride, v, stride);
    } else {
      transform_patch<F, false>(patch, groups, group_stride, v, stride);
    }
  }
}

}  // namespace mocograd::MOCO_ISA
