// What a direct convolution sums over its result, a strip of pixels and a panel of channels at a time,
// from the numbers as they were stored a moment ago: the statistics of a forward pass, the gradient
// sums of a data gradient (batch_sums.h). winograd_outputs.h has Winograd's.
#pragma once

#include "cpu/batch_sums.h"
#include "cpu/micro_kernel.h"

namespace mocograd::MOCO_ISA {

constexpr int64_t kStripPixels = 6 * kTileRows;  // at most, so that a panel of them stays in L1

template <class Stored>
struct Strip {
  Stored* const* pixel;  // the first channel of each
  int64_t pixels, column, columns;
  int64_t group, chunk;
  bool first;  // of the chunk
};

// Each kind of sums has the most pixels that it wants at once.
struct NoSums {
  static constexpr int64_t kPixels = INT64_MAX;

  template <class Stored>
  MOCO_ALWAYS_INLINE void add(const Strip<Stored>&) const {}
};

// partials[chunk] = [m, Σ(y − m), Σ(y − m)²], C of each
template <class Stored>
struct StripStatistics {
  static constexpr int64_t kPixels = kStripPixels;
  float* partials;
  int64_t C;

  MOCO_ALWAYS_INLINE void add(const Strip<Stored>& strip) const {
    float* const partial = partials + strip.chunk * kStatisticsSums * C + strip.column;
    for_each_column<float>(strip.columns, [&](auto access, int64_t j) {
      PieceStatistics<decltype(access)> sums(partial + j, C, strip.first);
      const auto y = [&](int64_t p) { return access.load(strip.pixel[p] + strip.column + j); };
      sums.begin(y(0));
      auto odd = sums;  // pixels, so that two sums are in flight
      int64_t p = 0;
      for (; p + 1 < strip.pixels; p += 2) {
        sums.add(y(p));
        odd.add(y(p + 1));
      }
      if (p < strip.pixels) sums.add(y(p));
      sums.add(odd);
      sums.leave();
    });
  }
};

// dz = dh·[h > 0] in place of the dh that was stored;  partials[chunk] = [Σdz, Σdz·(x − mean_g)], C of
// each
template <class Stored>
struct StripGradientSums {
  static constexpr int64_t kPixels = kStripPixels;
  float* partials;
  int64_t C;
  const Stored *dz, *h, *x;
  const float* mean;

  MOCO_ALWAYS_INLINE void add(const Strip<Stored>& strip) const {
    float* const partial = partials + strip.chunk * kGradientSums * C + strip.column;
    const float* const group_mean = mean + strip.group * C + strip.column;
    for_each_column<float>(strip.columns, [&](auto access, int64_t j) {
      PieceGradientSums<decltype(access)> sums(partial + j, C, strip.first,
                                               access.load(group_mean + j));
      for (int64_t p = 0; p < strip.pixels; ++p) {
        Stored* const target = strip.pixel[p] + strip.column + j;
        const int64_t at = target - dz;
        const auto value = masked(access.load(target), access.load(h + at));
        access.store(target, value);
        sums.add(value, access.load(x + at));
      }
      sums.leave();
    });
  }
};

}  // namespace mocograd::MOCO_ISA
