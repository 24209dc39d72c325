// conv2d: cross-correlation over NHWC images, zero padding
//   y[n,oh,ow,oc] = Σ_{kh,kw,c} x[n, oh·s − p + kh, ow·s − p + kw, c] · w[kh,kw,c,oc]
//     x: [N, H, W, C]; w: [KH, KW, C, OC]; y: [N, OH, OW, OC], OH = (H + 2p − KH)/s + 1
//   dx[n,h,w,c]      = Σ over the (oh, ow, kh, kw, oc) that read x[n,h,w,c] of dy · w
//   dw[kh,kw,c,oc]   = Σ_{n,oh,ow} x[n, oh·s − p + kh, ow·s − p + kw, c] · dy[n,oh,ow,oc]
// saved: x, w.  Requires: the kernel fits the padded image.
// statistics: of y, for the batch norm that follows; taken, and said to be, where they are there and
// the kernel can (Backend::conv2d_forward_statistics); S divides N.
#pragma once

#include "autograd/ops/batch_norm.h"

namespace mocograd {

Variable conv2d(const Variable& x, const Variable& w, Conv2dConfig config,
                BatchNormStatistics* statistics = nullptr);

// y alone; throws what conv2d throws where x and w do not go together. op: whose errors they are.
Tensor conv2d_result(const char* op, const Tensor& x, const Tensor& w, Conv2dConfig config,
                     BatchNormStatistics* statistics);

}  // namespace mocograd
