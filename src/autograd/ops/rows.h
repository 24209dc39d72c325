// Operations on the rows of matrices, f32 or f64, from which InfoNCE is built.
#pragma once

#include "autograd/variable.h"

namespace mocograd {

// y_i = x_i / max(‖x_i‖₂, eps)      x, y: [N, C]         (PyTorch's F.normalize)
//   dx_i = (dy_i − y_i·⟨y_i, dy_i⟩) / ‖x_i‖; dy_i / eps where the norm was clamped
//   dx_i is orthogonal to y_i.                                              saved: y, the norms
Variable l2_normalize(const Variable& x, double eps = 1e-12);

// y_i = Σ_j a_ij b_ij               a, b: [N, C]; y: [N, 1]
//   da_i = dy_i · b_i, db_i = dy_i · a_i                                    saved: a, b
Variable row_dot(const Variable& a, const Variable& b);

// y = [a | b]                       a: [N, A]; b: [N, B]; y: [N, A+B]
//   da, db = the parts of dy                                                saved: nothing
Variable concat_columns(const Variable& a, const Variable& b);

}  // namespace mocograd
