// Operations that treat every number alike, and the ones that only move numbers. f32 or f64; add,
// relu, convert and reshape bf16, too.
#pragma once

#include "autograd/variable.h"

namespace mocograd {

// y = a + b              da = dy, db = dy             a, b, y: one shape      saved: nothing
Variable add(const Variable& a, const Variable& b);

// y = a ⊙ b              da = dy ⊙ b, db = dy ⊙ a      a, b, y: one shape      saved: a, b
Variable multiply(const Variable& a, const Variable& b);

// y = factor · x         dx = factor · dy                                     saved: factor
Variable scale(const Variable& x, double factor);

// y = max(0, x)          dx = dy where y > 0, else 0   (a NaN stays NaN)       saved: y
Variable relu(const Variable& x);

// y = Σ_i x_i            dx_i = dy                     x: any shape; y: []     saved: x's shape
Variable sum(const Variable& x);

// y = x in another dtype   dx = dy in x's dtype                               saved: x's dtype
Variable convert(const Variable& x, DType dtype);

// y = x, other shape     dx = dy in x's shape         Requires: equal numel.  saved: x's shape
Variable reshape(const Variable& x, const Shape& shape);

}  // namespace mocograd
