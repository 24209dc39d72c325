// conv2d by pipelined products on the tensor cores (pipelined_product.h, and with wgmma
// warpgroup_product.h), the table of conv2d.cu again:
//
//                     A                                       B                          C
//   forward           pixels × taps of x, along k             w, along k [OC, KH·KW·C]   y  [pixels, OC]
//   data gradient     pixels × taps of dy, along k            w's taps, flipped          dx [pixels, C]
//   weight gradient   taps × pixels of x, across k            dy, across k [pixels, OC]  dw [KH·KW·C, OC]
//
// Images are bf16, or f32 that is multiplied in tf32.
//
// Eight channels of a pixel in bf16 are one piece of 16 bytes, which an asynchronous copy brings from
// where it lies in the image to where the tensor cores want it; the padding is a copy of no bytes. With
// 64 channels one step of K is one tap. Channels that are no whole pieces are first made so by zeros
// (whole_pieces.h).
//
// In bf16 3×3 with stride 1, of images whose shape allows it, has kernels that read each pixel once
// (conv2d_windows.cu, conv2d_weight_windows.cu); the stem has some that want neither whole pieces nor weights
// written beforehand (conv2d_stem.cu).
//
// The weights, f32 and few, are first rounded to x's type and written along k (staged_operand.h), so
// that forward pass and data gradient are one kernel; for wgmma by tiles, which one thread can copy
// (window_weights.h for the windows).
//
// Where C has few tiles, blocks share K, as in conv2d.cu; the parts are f32 and are added in order. The
// classes of a strided data gradient do not share it.
//
// With a stride the data gradient is several products (tensor/parity_class.h). One launch stages the
// weights of all, one computes them.
#include "cuda/conv2d_tensor_cores.h"

#include <algorithm>
#include <span>
#include <vector>

#include "cuda/conv2d_operands.h"
#include "cuda/conv2d_stem.h"
#include "cuda/conv2d_weight_windows.h"
#include "cuda/conv2d_windows.h"
#include "cuda/staged_operand.h"
#include "cuda/tile_product.h"
#include "cuda/warpgroup_product.h"
#include "cuda/whole_pieces.h"

namespace mocograd::MOCO_CUDA {
namespace {

// output = a·b, with a second pass where blocks share K. Returns whether what is wanted of it was
// taken: not where K is shared, nor of f32.
template <class T, class Tile, class A, class B, class Output>
bool product(const A& a, const B& b, const Output& output, int64_t M, int64_t N, int64_t K,
             const WantedSums& wanted = {}) {
  ProductShape shape = pipelined_shape<T, Tile>(M, N, K);
  shape.share_k_on(kMultiprocessors, Tile::kBlocks);
  const auto write = [&](const auto& sums) {
    pipelined_product_to<T, Tile>(a, b, output, shape, sums);
  };
  if (shape.splits == 1) {
    if constexpr (std::is_same_v<Output, PixelOutput<BFloat16>>)
      return with_sums(wanted, output.y, M, N, Tile::kRows, write);
    write(NoSums{});
    return false;
  }
  const Scratch<float> parts(M * N * shape.splits);
  pipelined_product_to<T, Tile>(a, b, MatrixOutput<float>{parts.data(), M, N}, shape);
  add_parts(M * N, shape.splits, parts.data(), output.row(0, 0));
  return false;
}

// Calls f with the tile of a product along k that has N columns.
template <class T, class F>
auto with_tile(int64_t N, const F& f) {
  if constexpr (sizeof(T) == 2) {
    if (N <= SlimTile::kColumns) return f(SlimTile());
    if (use_wgmma() && N <= 64) return f(WarpgroupTile<64>());
    if (use_wgmma()) return f(WarpgroupTile<128>());
  }
  if (N <= NarrowTile::kColumns) return f(NarrowTile());
  return f(WideTile());
}

// Weights, written along k as Tile wants its B.
template <class T, class Tile>
class StagedWeights {
 public:
  // weights: element (column of C, k), f32
  template <class Weights>
  StagedWeights(const Weights& weights, int64_t N, int64_t K)
      : count_(Tile::kWgmma ? ceil_div(N, Tile::kColumns) * Tile::kColumns : N),
        K_(ceil_div(K, kStep<T>) * kStep<T>),
        staged_(count_ * K_) {
    if constexpr (Tile::kWgmma)
      stage(weights, N, K, from(0), staged_.data());
    else
      stage(weights, N, K, StagedRows{narrow(N), narrow(K_)}, staged_.data());
  }

  // The operand B whose first k is this one. Requires: a step begins there.
  auto from(int64_t k) const {
    if constexpr (Tile::kWgmma)
      return StagedTiles<T, Tile::kColumns>{narrow(count_), narrow(K_),
                                            staged_.data() + k * Tile::kColumns};
    else
      return MatrixOperand<T, true>{staged_.data() + k, K_};
  }

 private:
  const int64_t count_, K_;
  const Scratch<T> staged_;
};

// Forward pass, or data gradient with stride 1, and what is wanted of it.
template <class T, class Weights>
bool correlate(const Correlation<T>& in, const Weights& weights, const PixelOutput<T>& output,
               int64_t M, int64_t N, int64_t K, const WantedSums& wanted) {
  return with_tile<T>(N, [&](auto tile) {
    using Tile = decltype(tile);
    const StagedWeights<T, Tile> staged(weights, N, K);
    return product<T, Tile>(PixelsByTaps<T>{in}, staged.from(0), output, M, N, K, wanted);
  });
}

// At most kMostClasses, none of which shares K.
template <class T>
void correlate_at_once(std::span<const DataGradientClass<T, float>> classes) {
  const int64_t N = classes[0].N;
  with_tile<T>(N, [&](auto tile) {
    using Tile = decltype(tile);
    using B = decltype(std::declval<StagedWeights<T, Tile>>().from(0));
    ClassTaps<float> taps(kStep<T>);
    for (const auto& part : classes) taps.add(part.w, part.K);
    const StagedWeights<T, Tile> staged(taps, N, taps.end());
    ProductList<PixelsByTaps<T>, B, PixelOutput<T>, kMostClasses> products;
    for (const auto& part : classes) {
      const B b = staged.from(taps.begin(products.size));
      products.add({{part.dy}, b, part.dx, pipelined_shape<T, Tile>(part.M, N, part.K)});
    }
    pipelined_products_to<T, Tile>(products);
  });
}

// The data gradient of a strided convolution. Alone, each class would leave the GPU half empty at its
// end.
template <class T>
void correlate_classes(std::vector<DataGradientClass<T, float>> classes) {
  // Those whose blocks take longest begin first: then the last blocks of all end at about the same
  // time.
  std::stable_sort(classes.begin(), classes.end(),
                   [](const auto& a, const auto& b) { return a.K > b.K; });
  for (size_t first = 0; first < classes.size(); first += kMostClasses) {
    const size_t count = std::min<size_t>(kMostClasses, classes.size() - first);
    correlate_at_once<T>(std::span(classes).subspan(first, count));
  }
}

// dw: [KH·KW·C, OC], C as x has it, in whole pieces
template <class T>
void weight_gradient(const Correlation<T>& in, const MatrixOperand<T, false>& dy, int64_t pixels,
                     const MatrixOutput<float>& dw) {
  const TapsByPixels<T> a{in};
  const auto by_tiles_of = [&](auto tile) {
    product<T, decltype(tile)>(a, dy, dw, dw.M, dw.N, pixels);
  };
  if constexpr (sizeof(T) == 2) {
    if (use_wgmma() && dw.N <= 64) return by_tiles_of(WarpgroupTile<64>());
    if (use_wgmma()) return by_tiles_of(WarpgroupTile<128>());
  }
  if (dw.N <= NarrowTile::kColumns) return by_tiles_of(NarrowTile());
  by_tiles_of(WideTile());
}

// dw[tap][c] = whole[tap][c] for c < C, rows of OC numbers.    whole: [taps, whole_C, OC]; dw: [taps, C, OC]
__global__ void take_channels_kernel(int64_t n, int C, int whole_C, int OC, const float* whole,
                                     float* dw) {
  const int64_t i = grid_index();
  if (i >= n) return;
  const int64_t row = i / OC;
  dw[i] = whole[(row / C * whole_C + row % C) * OC + i % OC];
}

void require_tensor_cores_for(DType dtype) {
  require_tensor_cores(dtype == DType::bf16 ? Precision::bf16 : Precision::tf32);
}

}  // namespace

bool pipelined_conv2d(const Tensor& image) {
  return image.dtype() == DType::bf16 || (image.dtype() == DType::f32 && on_tensor_cores<float>());
}

bool tensor_core_conv2d_forward(const Tensor& x, const Tensor& w, Conv2dConfig config,
                                const Tensor& y, const WantedSums& wanted) {
  require_tensor_cores_for(x.dtype());
  if (w.numel() == 0) return cuda_backend().fill(y, 0), false;
  if (use_wgmma() && takes_windows(x, w, config, y)) return window_conv2d(x, w, false, y, wanted);
  if (takes_stem(x, w)) return stem_conv2d(x, w, config, y, wanted);
  bool taken = false;
  with_stored_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t C = x.dim(3), OC = w.dim(3);
    const WholePieces<T> whole(x.raw<T>(), x.numel() / C, C);
    const Taps<float> taps{w.raw<float>(), narrow(C), narrow(whole.size()), narrow(OC)};
    Correlation<T> in = forward_correlation<T>(x, w.dim(1), config, y);
    in.x = whole.data(), in.C = taps.whole_C;
    taken = correlate<T>(in, taps, all_pixels<T>(y, y.raw<T>()), y.numel() / OC, OC,
                         w.dim(0) * w.dim(1) * whole.size(), wanted);
  });
  return taken;
}

bool tensor_core_conv2d_backward_data(const Tensor& dy, const Tensor& w, Conv2dConfig config,
                                      const Tensor& dx, const WantedSums& wanted) {
  require_tensor_cores_for(dx.dtype());
  if (w.numel() == 0) return cuda_backend().fill(dx, 0), false;
  if (use_wgmma() && takes_windows(dy, w, config, dx))
    return window_conv2d(dy, w, true, dx, wanted);
  bool taken = false;
  with_stored_type(dx.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t OC = dy.dim(3);
    const WholePieces<T> whole(dy.raw<T>(), dy.numel() / OC, OC);
    // A class without taps, of which a kernel smaller than its stride has some, is zero.
    if (std::min(w.dim(0), w.dim(1)) < config.stride) cuda_backend().fill(dx, 0);
    std::vector<DataGradientClass<T, float>> classes;
    for_each_class<T, float>(dy, w, config, dx, [&](DataGradientClass<T, float> part) {
      if (part.K == 0) return;
      part.dy.x = whole.data(), part.dy.C = part.w.whole_OC = narrow(whole.size());
      part.K = part.K / OC * whole.size();
      classes.push_back(part);
    });
    if (config.stride > 1) return correlate_classes<T>(std::move(classes));
    const DataGradientClass<T, float>& all = classes[0];
    taken = correlate<T>(all.dy, all.w, all.dx, all.M, all.N, all.K, wanted);
  });
  return taken;
}

void tensor_core_conv2d_backward_weight(const Tensor& x, const Tensor& dy, Conv2dConfig config,
                                        const Tensor& dw) {
  require_tensor_cores_for(x.dtype());
  if (use_wgmma() && weight_gradient_takes_windows(x, dy, config, dw))
    return window_weight_gradient(x, dy, dw);
  if (weight_gradient_takes_stem(x, dy, dw)) return stem_weight_gradient(x, dy, config, dw);
  with_stored_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t C = x.dim(3), OC = dy.dim(3), taps = dw.dim(0) * dw.dim(1);
    const int64_t pixels = dy.numel() / OC;
    const WholePieces<T> whole_x(x.raw<T>(), x.numel() / C, C), whole_dy(dy.raw<T>(), pixels, OC);
    const MatrixOperand<T, false> b{whole_dy.data(), whole_dy.size()};
    Correlation<T> in = forward_correlation<T>(x, dw.dim(1), config, dy);
    in.x = whole_x.data(), in.C = narrow(whole_x.size());
    const int64_t M = taps * whole_x.size();
    if (in.C == C) return weight_gradient(in, b, pixels, {dw.raw<float>(), M, OC});
    const Scratch<float> whole_dw(M * OC);
    weight_gradient(in, b, pixels, {whole_dw.data(), M, OC});
    launch(take_channels_kernel, one_thread_each(dw.numel()), dw.numel(), narrow(C), in.C,
           narrow(OC), whole_dw.data(), dw.raw<float>());
  });
}

}  // namespace mocograd::MOCO_CUDA
