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
// 64 channels one step of K is one tap.
//
// 3×3 with stride 1, of images whose shape allows it, has kernels that read each pixel once
// (conv2d_windows.cu, conv2d_weight_windows.cu).
//
// The weights, f32 and few, are first rounded to x's type and written along k (staged_operand.h), so that
// forward pass and data gradient are one kernel.
//
// Where C has few tiles, blocks share K, as in conv2d.cu: their parts are f32 and are added in order.
#include "cuda/conv2d_tensor_cores.h"

#include "cuda/conv2d_operands.h"
#include "cuda/conv2d_weight_windows.h"
#include "cuda/conv2d_windows.h"
#include "cuda/staged_operand.h"
#include "cuda/tile_product.h"
#include "cuda/warpgroup_product.h"

namespace mocograd::MOCO_CUDA {
namespace {

// output = a·b, with a second pass where blocks share K.
template <class T, class Tile, class A, class B, class Output>
void product(const A& a, const B& b, const Output& output, int64_t M, int64_t N, int64_t K,
             bool may_share) {
  ProductShape shape = pipelined_shape<T, Tile>(M, N, K);
  if (may_share) shape.share_k_on(kMultiprocessors, Tile::kBlocks);
  if (shape.splits == 1) return pipelined_product_to<T, Tile>(a, b, output, shape);
  const Scratch<float> parts(M * N * shape.splits);
  pipelined_product_to<T, Tile>(a, b, MatrixOutput<float>{parts.data(), M, N}, shape);
  add_parts(M * N, shape.splits, parts.data(), output.row(0, 0));
}

// Forward pass, or one class of the data gradient.    weights: element (column of C, k), f32
template <class T, class Weights>
void correlate(const Correlation<T>& in, const Weights& weights, const PixelOutput<T>& output,
               int64_t M, int64_t N, int64_t K) {
  const int64_t ld = ceil_div(K, kPiece<T>) * kPiece<T>;
  const Scratch<T> staged(N * ld);
  stage(weights, N, K, ld, staged.data());
  const MatrixOperand<T, true, true> b{staged.data(), ld};
  const auto by_tiles_of = [&](auto tile, const auto& a) {
    product<T, decltype(tile)>(a, b, output, M, N, K, output.stride == 1);
  };
  const PixelsByTaps<T, true> whole{in};
  if constexpr (sizeof(T) == 2) {
    const PixelsByTaps<T> single{in};
    if (in.C % kPiece<T> != 0 && N <= SlimTile::kColumns) return by_tiles_of(SlimTile(), single);
    if (in.C % kPiece<T> != 0) return by_tiles_of(NarrowTile(), single);
    if (N <= SlimTile::kColumns) return by_tiles_of(SlimTile(), whole);
    if (use_wgmma() && N <= 64) return by_tiles_of(WarpgroupTile<64>(), whole);
    if (use_wgmma()) return by_tiles_of(WarpgroupTile<128>(), whole);
  }
  if (N <= NarrowTile::kColumns) return by_tiles_of(NarrowTile(), whole);
  by_tiles_of(WideTile(), whole);
}

// output = dw: [KH·KW·C, OC]
template <class T>
void weight_gradient(const Correlation<T>& in, const Tensor& dy,
                     const MatrixOutput<float>& output) {
  const int64_t M = output.M, OC = output.N, K = dy.numel() / OC;
  const MatrixOperand<T, false, true> whole{dy.raw<T>(), OC};
  const auto by_tiles_of = [&](auto tile, const auto& a, const auto& b) {
    product<T, decltype(tile)>(a, b, output, M, OC, K, true);
  };
  if (OC % kPiece<T> != 0)
    return by_tiles_of(NarrowTile(), TapsByPixels<T>{in}, MatrixOperand<T, false>{dy.raw<T>(), OC});
  if (in.C % kPiece<T> != 0) {
    const TapsByPixels<T> single{in};
    if (M <= LowTile::kRows) return by_tiles_of(LowTile(), single, whole);
    return by_tiles_of(NarrowTile(), single, whole);
  }
  const TapsByPixels<T, true> pieces{in};
  if constexpr (sizeof(T) == 2) {
    if (use_wgmma() && OC <= 64) return by_tiles_of(WarpgroupTile<64>(), pieces, whole);
    if (use_wgmma()) return by_tiles_of(WarpgroupTile<128>(), pieces, whole);
  }
  if (OC <= NarrowTile::kColumns) return by_tiles_of(NarrowTile(), pieces, whole);
  by_tiles_of(WideTile(), pieces, whole);
}

// y = conv(x, weights), or a data gradient likewise, from windows of x, where that can be.
// weights: element (column of C, k), f32
template <class Weights>
bool correlate_windows(const Tensor& x, const Weights& weights, const Tensor& w,
                       Conv2dConfig config, const Tensor& y) {
  if (!use_wgmma() || !takes_windows(x, w, config, y)) return false;
  const int64_t N = y.dim(3), K = w.numel() / N;
  const Scratch<BFloat16> staged(N * K);
  stage(weights, N, K, K, staged.data());
  window_conv2d(x, staged.data(), y);
  return true;
}

void require_tensor_cores_for(DType dtype) {
  require_tensor_cores(dtype == DType::bf16 ? Precision::bf16 : Precision::tf32);
}

}  // namespace

bool pipelined_conv2d(const Tensor& image) {
  if (image.dtype() == DType::bf16) return true;
  return pipelined_weight_gradient(image) && image.dim(3) % kPiece<float> == 0;
}

bool pipelined_weight_gradient(const Tensor& x) {
  return x.dtype() == DType::bf16 || (x.dtype() == DType::f32 && on_tensor_cores<float>());
}

void tensor_core_conv2d_forward(const Tensor& x, const Tensor& w, Conv2dConfig config,
                                const Tensor& y) {
  require_tensor_cores_for(x.dtype());
  const int64_t OC = w.dim(3), K = w.numel() / OC;
  const MatrixOperand<float, false> weights{w.raw<float>(), OC};
  if (correlate_windows(x, weights, w, config, y)) return;
  with_stored_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    correlate<T>(forward_correlation<T>(x, w.dim(1), config, y), weights,
                 all_pixels<T>(y, y.raw<T>()), y.numel() / OC, OC, K);
  });
}

void tensor_core_conv2d_backward_data(const Tensor& dy, const Tensor& w, Conv2dConfig config,
                                      const Tensor& dx) {
  require_tensor_cores_for(dx.dtype());
  with_stored_type(dx.dtype(), [&](auto zero) {
    using T = decltype(zero);
    for_each_class<T, float>(dy, w, config, dx, [&](const DataGradientClass<T, float>& part) {
      if (correlate_windows(dy, part.w, w, config, dx)) return;
      correlate<T>(part.dy, part.w, part.dx, part.M, part.N, part.K);
    });
  });
}

void tensor_core_conv2d_backward_weight(const Tensor& x, const Tensor& dy, Conv2dConfig config,
                                        const Tensor& dw) {
  require_tensor_cores_for(x.dtype());
  if (use_wgmma() && weight_gradient_takes_windows(x, config, dw))
    return window_weight_gradient(x, dy, dw);
  const int64_t OC = dw.dim(3);
  with_stored_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    weight_gradient(forward_correlation<T>(x, dw.dim(1), config, dy), dy,
                    MatrixOutput<float>{dw.raw<float>(), dw.numel() / OC, OC});
  });
}

}  // namespace mocograd::MOCO_CUDA
