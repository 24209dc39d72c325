// Winograd's minimal filtering for 3×3 convolutions of padding 1, computed in f32 (Lavin and Gray,
// arXiv:1509.09308): F(4×4, 3×3) with stride 1, with stride 2 F(4, 2) for what meets the even pixels.
// docs/WINOGRAD.md derives both.
//
//   y  = Aᵀ [ Σ_c (G w Gᵀ) ⊙ (Bᵀ x B) ] A           for each 4×4 tile of y and its patch of x
//   dx = the same of dy, with w flipped and c and oc exchanged
//   dw = Gᵀ [ Σ_tiles (Bᵀ x B) ⊙ (A dy Aᵀ) ] G      the exact adjoint of the first line
//
// The sums are matrix products, one for each element of a transformed patch: 36 in place of the direct
// convolution's 144 multiplications with stride 1, 81 with stride 2.
//   winograd_transforms.h   Bᵀ, G, Aᵀ and their adjoints, on vectors of channels
//   winograd_tiles.h        tiles and patches of a batch of images, and Bᵀ x B
//   winograd_outputs.h      Aᵀ M A, and what a batch norm needs of it
//   winograd.cpp            y and dx
//   winograd_weight.cpp     dw
#pragma once

#include "cpu/conv_algorithm.h"
#include "tensor/backend.h"

namespace mocograd::MOCO_ISA {

// The rule that --conv auto follows: by shape alone, so that results never depend on a timing.
// x and w may be dx and dw. Channels must fill whole vectors on both sides. Counting in
// multiplications for a pair of channels, a pixel of y costs 9 directly; a tile costs 36 or, with
// stride 2, 81 that take, with its transforms, the time of about 60 or 110, however many of its pixels
// are in the image; and the transform of the weights takes the time of about 300.
MOCO_ALWAYS_INLINE bool winograd_pays(const Tensor& x, const Tensor& w, Conv2dConfig config) {
  if (x.dtype() == DType::f64 || conv_algorithm() == ConvAlgorithm::direct) return false;
  if (w.dim(0) != 3 || w.dim(1) != 3 || config.stride > 2 || config.padding != 1) return false;
  if (w.dim(2) % 16 != 0 || w.dim(3) % 16 != 0) return false;
  const int64_t N = x.dim(0), OH = (x.dim(1) - 1) / config.stride + 1,
                OW = (x.dim(2) - 1) / config.stride + 1;
  const int64_t tile = config.stride == 1 ? 60 : 110;
  return 9 * N * OH * OW >= tile * N * ((OH + 3) / 4) * ((OW + 3) / 4) + 300;
}

// Require: winograd_pays.
void winograd_forward(const Tensor& x, const Tensor& w, int64_t stride, const Tensor& y);
void winograd_backward_data(const Tensor& dy, const Tensor& w, int64_t stride, const Tensor& dx);
// Backend::conv2d_forward_statistics and conv2d_backward_data_sums.
void winograd_forward_statistics(const Tensor& x, const Tensor& w, int64_t stride, const Tensor& y,
                                 const Tensor& mean, const Tensor& var);
void winograd_backward_data_sums(const Tensor& dy, const Tensor& w, int64_t stride, const Tensor& h,
                                 const Tensor& x, const Tensor& mean, const Tensor& dz,
                                 const Tensor& sums);
void winograd_backward_weight(const Tensor& x, const Tensor& dy, int64_t stride, const Tensor& dw);

}  // namespace mocograd::MOCO_ISA
