// What a batch norm needs to know of a convolution's result, summed by the kernel that writes it:
//
//   NoSums           y                       nothing
//   StatisticsSums   y                       [m, Σ(y − m), Σ(y − m)²], m: y of the chunk's first pixel
//   MaskedSums       dz = dh·[h > 0] for dh  [Σdz, Σdz·(x − mean)]
//
// of each channel of a chunk of pixels, a block's tile or window. A chunk lies within one group and is
// whole (with_sums sees to it), so chunk k of the batch is k mod chunks of group k / chunks. Numbers
// are summed as they are stored, in bf16; the sums are f32. batch_sums.h combines the chunks, in the
// order of their pixels: no sum depends on which block came first.
#pragma once

#include "cuda/batch_sums.h"
#include "cuda/vectors.h"
#include "cuda/warp.h"

namespace mocograd::MOCO_CUDA {

struct NoSums {};

struct StatisticsSums {
  float* partials;  // [chunk][3][C]
};

struct MaskedSums {
  const BFloat16 *h, *x;  // like dz
  const float* mean;      // [group][C]
  int chunks;             // of a group
  float* partials;        // [chunk][2][C]
};

struct ChunkPlace {
  int chunk, C, channel;
};

// Both sums of a thread, of its N neighbouring channels from at.channel on.
//   fetch(place)   begins to read what add needs beside y, from `place` elements behind the images' beginning
//   add            of a pixel; returns what is to be stored
//   leave          writes the chunk's partial
template <class Sums, int N>
class ThreadSums;

template <int N>
class TwoSums {
 public:
  // Over the lanes that differ in the bits from `first` up to `end`; all get them.
  template <int first, int end>
  __device__ void add_lanes() {
#pragma unroll
    for (int lanes = first; lanes < end; lanes *= 2)
#pragma unroll
      for (int v = 0; v < N; ++v)
        for (int i = 0; i < 2; ++i) sum[i][v] += __shfl_xor_sync(kAllLanes, sum[i][v], lanes);
  }
  Vector<float, N> sum[2] = {};
};

template <int N>
class ThreadSums<NoSums, N> {
 public:
  static constexpr bool kAny = false;
  struct Inputs {};
  template <class First>
  __device__ ThreadSums(const NoSums&, const ChunkPlace&, const First&) {}
  __device__ Inputs fetch(int64_t /*place*/) const { return {}; }
  __device__ Vector<BFloat16, N> add(const Vector<BFloat16, N>& y, const Inputs&) { return y; }
};

template <int N>
class ThreadSums<StatisticsSums, N> : public TwoSums<N> {
 public:
  static constexpr bool kAny = true;
  struct Inputs {};
  // first(): y of the chunk's first pixel
  template <class First>
  __device__ ThreadSums(const StatisticsSums& wanted, const ChunkPlace& at, const First& first)
      : origin_(first()),
        C_(at.C),
        partial_(wanted.partials + int64_t{at.chunk} * 3 * C_ + at.channel) {}

  __device__ Inputs fetch(int64_t /*place*/) const { return {}; }
  __device__ Vector<BFloat16, N> add(const Vector<BFloat16, N>& y, const Inputs&) {
#pragma unroll
    for (int v = 0; v < N; ++v) {
      const float deviation = float{y[v]} - float{origin_[v]};
      this->sum[0][v] += deviation;
      this->sum[1][v] += deviation * deviation;
    }
    return y;
  }
  __device__ void leave() const {
    Vector<float, N> origin;
    for (int v = 0; v < N; ++v) origin[v] = origin_[v];
    store(partial_, origin);
    store(partial_ + C_, this->sum[0]);
    store(partial_ + 2 * C_, this->sum[1]);
  }

 private:
  const Vector<BFloat16, N> origin_;
  const int C_;
  float* const partial_;
};

template <int N>
class ThreadSums<MaskedSums, N> : public TwoSums<N> {
 public:
  static constexpr bool kAny = true;
  struct Inputs {
    Vector<BFloat16, N> h, x;
  };
  template <class First>
  __device__ ThreadSums(const MaskedSums& wanted, const ChunkPlace& at, const First& /*first*/)
      : h_(wanted.h),
        x_(wanted.x),
        mean_(load<N>(wanted.mean + int64_t{at.chunk / wanted.chunks} * at.C + at.channel)),
        C_(at.C),
        partial_(wanted.partials + int64_t{at.chunk} * 2 * C_ + at.channel) {}

  __device__ Inputs fetch(int64_t place) const {
    return {load<N>(h_ + place), load<N>(x_ + place)};
  }
  __device__ Vector<BFloat16, N> add(const Vector<BFloat16, N>& dh, const Inputs& in) {
    Vector<BFloat16, N> dz;
#pragma unroll
    for (int v = 0; v < N; ++v) {
      dz[v] = in.h[v] > 0 ? dh[v] : BFloat16(0);
      this->sum[0][v] += dz[v];
      this->sum[1][v] += dz[v] * (in.x[v] - mean_[v]);
    }
    return dz;
  }
  __device__ void leave() const {
    store(partial_, this->sum[0]);
    store(partial_ + C_, this->sum[1]);
  }

 private:
  const BFloat16 *const h_, *const x_;
  const Vector<float, N> mean_;
  const int C_;
  float* const partial_;
};

// Writes a chunk of so many pixels, each of so many pieces of 8 channels from at.channel on, and
// leaves its sums; `threads` threads.
//   piece_of(pixel, i)   its piece i, in shared memory
//   place_of(pixel)      where the pixel's channel at.channel is in y; -1: nowhere
//   scratch              shared: of each warp two sums of all these channels
//   barrier()            waits for all the threads
template <int threads, int pixels, int pieces, class Sums, class PieceOf, class PlaceOf,
          class Barrier>
__device__ void write_chunk(const Sums& wanted, const ChunkPlace& at, const PieceOf& piece_of,
                            const PlaceOf& place_of, BFloat16* y, float* scratch,
                            const Barrier& barrier) {
  constexpr int N = 8, kStep = threads / pieces, kAtOnce = pixels / kStep / 2;
  static_assert(pixels == 2 * kAtOnce * kStep && 32 % pieces == 0);
  using Of = ThreadSums<Sums, N>;
  const int thread = threadIdx.x % threads, piece = thread % pieces,
            channel = at.channel + piece * N;
  const bool inside = channel < at.C;
  const auto from = [&](int pixel) { return load<N>(piece_of(pixel, piece)); };
  Of sums(wanted, {at.chunk, at.C, inside ? channel : 0}, [&] { return from(0); });
#pragma unroll
  for (int begin = 0; begin < pixels; begin += kAtOnce * kStep) {
    const int first = begin + thread / pieces;
    int64_t place[kAtOnce];
    typename Of::Inputs in[kAtOnce] = {};
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      place[k] = inside ? place_of(first + k * kStep) : -1;
      if (place[k] < 0) continue;
      place[k] += piece * N;
      in[k] = sums.fetch(place[k]);
    }
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      const Vector<BFloat16, N> stored = sums.add(from(first + k * kStep), in[k]);
      if (place[k] >= 0) store(y + place[k], stored);
    }
  }
  if constexpr (Of::kAny) {
    sums.template add_lanes<pieces, 32>();
    const auto of_warp = [&](int warp, int i) {
      return scratch + ((warp * 2 + i) * pieces + piece) * N;
    };
    if (thread % 32 < pieces)
      for (int i = 0; i < 2; ++i) store(of_warp(thread / 32, i), sums.sum[i]);
    barrier();
    if (thread >= pieces || !inside) return;
#pragma unroll
    for (int warp = 1; warp < threads / 32; ++warp)
      for (int i = 0; i < 2; ++i) {
        const Vector<float, N> others = load<N>(of_warp(warp, i));
        for (int v = 0; v < N; ++v) sums.sum[i][v] += others[v];
      }
    sums.leave();
  }
}

// ---- launching -------------------------------------------------------------------------------------

// y: [rows, C]. Calls launch(sums) with one of the three above, of chunks of chunk_rows rows, and
// combines what the chunks leave. Returns whether that was what is wanted: where a chunk would reach
// into two groups, or something is not in whole vectors, launch is given NoSums.
template <class Launch>
bool with_sums(const WantedSums& wanted, const BFloat16* y, int64_t rows, int64_t C, int chunk_rows,
               const Launch& launch) {
  const auto whole_chunks = [&](int64_t groups, const auto*... places) {
    return rows % (groups * chunk_rows) == 0 && C % 8 == 0 && takes_vectors<8>(y, places...);
  };
  const auto chunks_of = [&](int64_t groups) -> Chunks {
    const int64_t of_group = rows / groups;
    return {C, of_group, static_cast<int>(groups), chunk_rows,
            static_cast<int>(of_group / chunk_rows)};
  };
  if (const auto* to = std::get_if<Statistics>(&wanted)) {
    const int64_t groups = to->mean.dim(0);
    if (whole_chunks(groups)) {
      const Chunks part = chunks_of(groups);
      const Scratch<float> partials(groups * part.chunks * 3 * C);
      launch(StatisticsSums{partials.data()});
      combine_statistics(part, partials.data(), *to);
      return true;
    }
  }
  if (const auto* to = std::get_if<GradientSums>(&wanted)) {
    const auto *h = to->h.raw<BFloat16>(), *x = to->x.raw<BFloat16>();
    const float* const mean = to->mean.raw<float>();
    const int64_t groups = to->mean.dim(0);
    if (whole_chunks(groups, h, x, mean)) {
      const Chunks part = chunks_of(groups);
      const Scratch<float> partials(groups * part.chunks * 2 * C);
      launch(MaskedSums{h, x, mean, part.chunks, partials.data()});
      combine_gradient_sums(part, partials.data(), *to);
      return true;
    }
  }
  launch(NoSums{});
  return false;
}

}  // namespace mocograd::MOCO_CUDA
