// The tiles that a batch of images is cut into for Winograd, and the transform of their patches.
//
// A tile is 4×4 pixels of y; its patch, 6×6 pixels of x, begins one pixel above and to the left of
// it. What lies outside of the image is zero in a patch and is left out of a tile, so the sides of
// an image need not be multiples of 4. Tiles are numbered by image, row and column.
#pragma once

#include "cpu/integers.h"
#include "cpu/scratch.h"
#include "cpu/winograd_transforms.h"

namespace mocograd::MOCO_ISA {

constexpr int64_t kPanel =
    2 * kGroup;  // output channels that the products are computed for at once

// A row of a patch above or below the image.
template <class Stored>
MOCO_ALWAYS_INLINE const Stored* scratch_zeros(int slot, int64_t C) {
  Stored* zeros = scratch_of<Stored>(slot, kPatch * C);
  __builtin_memset(zeros, 0, static_cast<size_t>(kPatch * C) * sizeof(Stored));
  return zeros;
}

struct TileGrid {
  int64_t H, W, rows, columns, count;

  MOCO_ALWAYS_INLINE explicit TileGrid(const Tensor& images)
      : H(images.dim(1)),
        W(images.dim(2)),
        rows(ceil_div(H, kTile)),
        columns(ceil_div(W, kTile)),
        count(images.dim(0) * rows * columns) {}

  // A tile's first pixel.
  struct Place {
    int64_t image, h, w;
  };
  MOCO_ALWAYS_INLINE Place place(int64_t tile) const {
    return {tile / (rows * columns), tile / columns % rows * kTile, tile % columns * kTile};
  }
  MOCO_ALWAYS_INLINE int64_t pixel(const Place& p) const { return (p.image * H + p.h) * W + p.w; }
  // How many pixels of the images tiles [begin, end) have.
  MOCO_ALWAYS_INLINE int64_t pixels(int64_t begin, int64_t end) const {
    int64_t sum = 0;
    for (int64_t tile = begin; tile < end; ++tile) {
      const Place p = place(tile);
      sum += smaller(kTile, H - p.h) * smaller(kTile, W - p.w);
    }
    return sum;
  }
  // Whether all of the tile's pixels are in the image.
  MOCO_ALWAYS_INLINE bool whole(const Place& p) const {
    return p.h + kTile <= H && p.w + kTile <= W;
  }
};

// The distance between the 36 elements of `numel` transformed numbers each, padded so that it is no
// power of two, which would send all 36 to one set of the cache.
MOCO_ALWAYS_INLINE int64_t element_stride(int64_t numel) {
  return numel + kGroup;
}

// A patch's rows, each six pixels `stride` numbers apart, of which [first, last) are in the image.
template <class Stored>
struct Patch {
  const Stored* row[kPatch];
  int64_t stride, first, last;
};

// Two rows of elements of Bᵀ x B for one group of channels; `inside`: all columns are.
template <int pair, bool inside, class Stored>
MOCO_ALWAYS_INLINE void transform_pair(const Patch<Stored>& patch, int64_t c, float* v,
                                       int64_t stride) {
  Vector column[2][kPatch];
#pragma GCC unroll 6
  for (int j = 0; j < kPatch; ++j) {
    if (!inside && (j < patch.first || j >= patch.last)) {
      column[0][j] = column[1][j] = Vector{};
      continue;
    }
    Vector x[kPatch];
#pragma GCC unroll 6
    for (int i = 0; i < kPatch; ++i) x[i] = load(patch.row[i] + j * patch.stride + c);
    input_pair<pair>(x, column[0][j], column[1][j]);
  }
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    Vector e[kPatch];
    input_pair<0>(column[half], e[0], e[5]);
    input_pair<1>(column[half], e[1], e[2]);
    input_pair<2>(column[half], e[3], e[4]);
    float* row = v + (half == 0 ? first_of(pair) : second_of(pair)) * kPatch * stride;
#pragma GCC unroll 6
    for (int j = 0; j < kPatch; ++j) store(row + j * stride, e[j]);
  }
}

// All of one patch: its group g goes to v + g·group_stride.
template <bool inside, class Stored>
[[gnu::noinline]] void transform_patch(const Patch<Stored>& patch, int64_t groups,
                                       int64_t group_stride, float* v, int64_t stride) {
  for (int64_t group = 0; group < groups; ++group, v += group_stride) {
    transform_pair<0, inside>(patch, group * kGroup, v, stride);
    transform_pair<1, inside>(patch, group * kGroup, v, stride);
    transform_pair<2, inside>(patch, group * kGroup, v, stride);
  }
}

// V = Bᵀ x B of the tiles [begin, end): element e at v + e·stride, [group][tile][channel], so that
// the products read it in order. x: the first of the groups' channels, of C, of pixel 0.
template <class Stored>
MOCO_ALWAYS_INLINE void transform_patches(const TileGrid& grid, const Stored* x, int64_t C,
                                          int64_t groups, int64_t begin, int64_t end,
                                          const Stored* zeros, float* v, int64_t stride) {
  const int64_t group_stride = (end - begin) * kGroup;
  for (int64_t tile = begin; tile < end; ++tile, v += kGroup) {
    const TileGrid::Place place = grid.place(tile);
    const Stored* corner = x + (grid.pixel(place) - grid.W - 1) * C;
    Patch<Stored> patch{{}, C, place.w == 0 ? 1 : 0, smaller(kPatch, grid.W - place.w + 1)};
    for (int i = 0; i < kPatch; ++i) {
      const int64_t h = place.h - 1 + i;
      patch.row[i] = h >= 0 && h < grid.H ? corner + i * grid.W * C : zeros;
    }
    if (patch.first == 0 && patch.last == kPatch) {
      transform_patch<true>(patch, groups, group_stride, v, stride);
    } else {
      transform_patch<false>(patch, groups, group_stride, v, stride);
    }
  }
}

}  // namespace mocograd::MOCO_ISA
