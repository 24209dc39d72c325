// Winograd's minimal filtering for 3×3 convolutions of stride 1 and padding 1, f32: F(4×4, 3×3),
// after Lavin and Gray (arXiv:1509.09308); docs/WINOGRAD.md derives it.
//
//   y  = Aᵀ [ Σ_c  (G w Gᵀ) ⊙ (Bᵀ x B) ] A             for each 4×4 tile of y, its 6×6 patch of x
//   dx = the same of dy, with w flipped and c and oc exchanged
//   dw = Gᵀ [ Σ_tiles (Bᵀ x B) ⊙ (A dy Aᵀ) ] G          the exact adjoint of the first line
//
// The sums over c (over tiles) are 36 matrix products, one for each element of the 6×6 patch, with
// a quarter of the direct convolution's multiplications.
#pragma once

#include "cpu/conv_algorithm.h"
#include "tensor/backend.h"

namespace mocograd::MOCO_ISA {

// The rule. Channels: whole vectors on both sides. Pixels: a tile costs 36 multiplications and,
// with the transforms, about the time of 60, whether or not all its 16 pixels are in the image;
// directly each pixel costs 9.
MOCO_ALWAYS_INLINE bool winograd_pays(const Tensor& x, const Tensor& w, Conv2dConfig config) {
  if (x.dtype() != DType::f32 || conv_algorithm() == ConvAlgorithm::direct) return false;
  if (w.dim(0) != 3 || w.dim(1) != 3 || config.stride != 1 || config.padding != 1) return false;
  if (w.dim(2) % 16 != 0 || w.dim(3) % 16 != 0) return false;
  const int64_t H = x.dim(1), W = x.dim(2), tiles = ((H + 3) / 4) * ((W + 3) / 4);
  return 9 * H * W >= 60 * tiles;
}

void winograd_forward(const Tensor& x, const Tensor& w, const Tensor& y);
void winograd_backward_data(const Tensor& dy, const Tensor& w, const Tensor& dx);
void winograd_backward_weight(const Tensor& x, const Tensor& dy, const Tensor& dw);

}  // namespace mocograd::MOCO_ISA
