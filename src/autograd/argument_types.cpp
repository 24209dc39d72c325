#include "autograd/argument_types.h"

namespace mocograd {
namespace {

bool is_float(const Tensor& x) {
  return x.defined() && (x.dtype() == DType::f32 || x.dtype() == DType::f64);
}

void check(bool right, const char* op, const char* types, const Tensor& x,
           std::source_location where) {
  if (right) return;
  detail::fail_check(where.file_name(), static_cast<int>(where.line()),
                     detail::concatenate(op, ": needs ", types, ", got ", x.describe()));
}

}  // namespace

void check_float(const char* op, const Tensor& x, std::source_location where) {
  check(is_float(x), op, "f32 or f64", x, where);
}

void check_activation(const char* op, const Tensor& x, std::source_location where) {
  check(is_float(x) || (x.defined() && x.dtype() == DType::bf16), op, "f32, f64 or bf16", x, where);
}

}  // namespace mocograd
