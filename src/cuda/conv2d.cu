// conv2d: forward, data gradient and weight gradient, all as products by tiles (tile_product.h)
//
//                     A                             B                        C
//   forward           pixels × taps of x            w [KH·KW·C, OC]          y  [pixels, OC]
//   data gradient     pixels × taps of dy           w's taps, flipped        dx [pixels, C]
//   weight gradient   taps × pixels of x            dy [pixels, OC]          dw [KH·KW·C, OC]
//
// A is never in memory: Correlation says which number of the image stands in its row and column, or
// that it is a zero of the padding. With stride s the data gradient is s² correlations of stride 1
// (tensor/parity_class.h). The weight gradient is a long sum, over all pixels of the batch, for few
// results: blocks share it.
#include "cuda/conv2d_operands.h"
#include "cuda/conv2d_tensor_cores.h"
#include "cuda/tile_product.h"

namespace mocograd::MOCO_CUDA {

void CudaBackend::conv2d_forward(const Tensor& x, const Tensor& w, Conv2dConfig config,
                                 const Tensor& y) {
  if (y.numel() == 0) return;
  if (pipelined_conv2d(x)) return void(tensor_core_conv2d_forward(x, w, config, y));
  const int64_t K = w.dim(0) * w.dim(1) * w.dim(2), OC = w.dim(3);
  with_float_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    tile_product(PixelsByTaps<T>{forward_correlation<T>(x, w.dim(1), config, y)},
                 MatrixOperand<T, false>{w.raw<T>(), OC}, y.numel() / OC, OC, K, y.raw<T>());
  });
}

void CudaBackend::conv2d_backward_data(const Tensor& dy, const Tensor& w, Conv2dConfig config,
                                       const Tensor& dx) {
  if (pipelined_conv2d(dy)) return void(tensor_core_conv2d_backward_data(dy, w, config, dx));
  with_float_type(dx.dtype(), [&](auto zero) {
    using T = decltype(zero);
    for_each_class<T, T>(dy, w, config, dx, [](const DataGradientClass<T, T>& part) {
      tile_product_to<T>(PixelsByTaps<T>{part.dy}, part.w, part.dx,
                         product_shape<T>(part.M, part.N, part.K));
    });
  });
}

void CudaBackend::conv2d_backward_weight(const Tensor& x, const Tensor& dy, Conv2dConfig config,
                                         const Tensor& dw) {
  if (dw.numel() == 0) return;
  if (pipelined_conv2d(x)) return tensor_core_conv2d_backward_weight(x, dy, config, dw);
  const int64_t taps = dw.dim(0) * dw.dim(1) * dw.dim(2), OC = dw.dim(3);
  with_float_type(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    tile_product(TapsByPixels<T>{forward_correlation<T>(x, dw.dim(1), config, dy)},
                 MatrixOperand<T, false>{dy.raw<T>(), OC}, taps, OC, dy.numel() / OC, dw.raw<T>());
  });
}

bool CudaBackend::conv2d_forward_statistics(const Tensor& x, const Tensor& w, Conv2dConfig config,
                                            const Tensor& y, const Tensor& mean,
                                            const Tensor& var) {
  if (pipelined_conv2d(x))
    return tensor_core_conv2d_forward(x, w, config, y, Statistics{mean, var});
  conv2d_forward(x, w, config, y);
  return false;
}

bool CudaBackend::conv2d_backward_data_sums(const Tensor& dy, const Tensor& w, Conv2dConfig config,
                                            const Tensor& h, const Tensor& x, const Tensor& mean,
                                            const Tensor& dz, const Tensor& sums) {
  if (pipelined_conv2d(dy))
    return tensor_core_conv2d_backward_data(dy, w, config, dz, GradientSums{h, x, mean, sums});
  conv2d_backward_data(dy, w, config, dz);
  return false;
}

}  // namespace mocograd::MOCO_CUDA
