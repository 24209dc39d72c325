#include "tensor/shape.h"

#include <algorithm>

namespace mocograd {

Shape::Shape(std::initializer_list<int64_t> dims) {
  assign(dims.begin(), dims.size());
}

Shape::Shape(const std::vector<int64_t>& dims) {
  assign(dims.data(), dims.size());
}

void Shape::assign(const int64_t* dims, size_t ndim) {
  MOCO_CHECK(ndim <= kMaxDims, "shape: ", ndim, " dimensions, at most ", kMaxDims,
             " are supported");
  ndim_ = static_cast<int>(ndim);
  for (int i = 0; i < ndim_; ++i) {
    MOCO_CHECK(dims[i] >= 0, "shape: dimension ", i, " is negative: ", dims[i]);
    dims_[i] = dims[i];
  }
  int64_t product = 1;
  for (int i = 0; i < ndim_; ++i)
    MOCO_CHECK(!__builtin_mul_overflow(product, dims_[i], &product) && product <= kMaxNumel,
               "shape: ", to_string(), " has more than 2^56 elements");
}

bool Shape::operator==(const Shape& other) const {
  return ndim_ == other.ndim_ && std::equal(dims_, dims_ + ndim_, other.dims_);
}

std::string Shape::to_string() const {
  std::string text = "[";
  for (int i = 0; i < ndim_; ++i) text += (i ? ", " : "") + std::to_string(dims_[i]);
  return text + "]";
}

}  // namespace mocograd
