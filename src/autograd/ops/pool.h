// Pooling over NHWC images.
#pragma once

#include "autograd/variable.h"

namespace mocograd {

// y = the largest of each 3×3 window, stride 2, padding 1
//   x: [N, H, W, C]; y: [N, (H−1)/2 + 1, (W−1)/2 + 1, C]
//   dx = Σ of dy over the windows that the element won (the first of equals)     saved: the winners
Variable max_pool(const Variable& x);

// y_nc = 1/(H·W) · Σ_hw x_nhwc                             x: [N, H, W, C]; y: [N, C]
//   dx_nhwc = dy_nc / (H·W)                                                   saved: x's shape
Variable global_avg_pool(const Variable& x);

}  // namespace mocograd
