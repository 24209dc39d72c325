// Shape: the extents of a dense row-major tensor, outermost dimension first.
//   numel = d_0 · d_1 · … · d_{n-1}        (1 for a scalar, whose ndim is 0)
// A tensor is always contiguous, so strides follow from the shape:
//   stride_i = d_{i+1} · … · d_{n-1}
// At most kMaxDims dimensions; a plain value, cheap to copy, readable in a debugger.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "tensor/error.h"

namespace mocograd {

class Shape {
 public:
  static constexpr int kMaxDims = 5;
  static constexpr int64_t kMaxNumel = int64_t{1} << 56;  // so that bytes fit into 64 bits, too

  Shape() = default;  // the shape of a scalar
  Shape(std::initializer_list<int64_t> dims);
  explicit Shape(const std::vector<int64_t>& dims);

  // Always inlined: the CPU kernels call these from files built for wider instruction sets, which
  // must not leave a copy that an older processor could run (tests/architecture_test.sh).
  MOCO_ALWAYS_INLINE int ndim() const { return ndim_; }
  MOCO_ALWAYS_INLINE int64_t operator[](int i) const { return dims_[i]; }
  MOCO_ALWAYS_INLINE int64_t numel() const {
    int64_t product = 1;
    for (int i = 0; i < ndim_; ++i) product *= dims_[i];
    return product;
  }

  bool operator==(const Shape& other) const;
  std::vector<int64_t> to_vector() const { return {dims_, dims_ + ndim_}; }
  std::string to_string() const;  // "[128, 32, 32, 3]"

 private:
  void assign(const int64_t* dims, size_t ndim);

  int ndim_ = 0;
  int64_t dims_[kMaxDims] = {};
};

}  // namespace mocograd
