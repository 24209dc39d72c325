// Tensor: a shape, a dtype and a place in shared storage. It knows nothing of gradients (that is
// Variable, in autograd/variable.h).
//
// Always dense and row-major. Copying a Tensor shares the storage; reshape and rows are views of
// it; clone is the copy of the numbers. A default-constructed Tensor is undefined and says so when
// it is used.
#pragma once

#include <memory>
#include <vector>

#include "tensor/dtype.h"
#include "tensor/shape.h"

namespace mocograd {

class Backend;

enum class Device { cpu, cuda, cuda_emulated };

const char* name_of(Device device);  // "cpu", "cuda", "cuda-emulated"

// Where and in which type a tensor is made.
struct TensorOptions {
  DType dtype = DType::f32;
  Device device = Device::cpu;
};

class Tensor {
 public:
  Tensor() = default;  // undefined

  // Unwritten numbers: the caller's kernel must write every one.
  static Tensor empty(const Shape& shape, TensorOptions options = {});
  static Tensor zeros(const Shape& shape, TensorOptions options = {});
  static Tensor full(const Shape& shape, double value, TensorOptions options = {});
  // Numbers in row-major order, converted to options.dtype. Requires: values.size() == numel.
  static Tensor from(const std::vector<double>& values, const Shape& shape,
                     TensorOptions options = {});
  // The same shape, dtype and device; unwritten, or zero.
  static Tensor empty_like(const Tensor& other);
  static Tensor zeros_like(const Tensor& other);

  MOCO_ALWAYS_INLINE bool defined() const { return data_ != nullptr; }
  MOCO_ALWAYS_INLINE const Shape& shape() const { return shape_; }
  MOCO_ALWAYS_INLINE int ndim() const { return shape_.ndim(); }
  MOCO_ALWAYS_INLINE int64_t dim(int i) const { return shape_[i]; }
  MOCO_ALWAYS_INLINE int64_t numel() const { return shape_.numel(); }
  MOCO_ALWAYS_INLINE DType dtype() const { return dtype_; }
  Device device() const { return device_; }
  TensorOptions options() const { return {dtype_, device_}; }
  size_t bytes() const { return static_cast<size_t>(numel()) * size_of(dtype_); }
  Backend& backend() const;  // the kernels of this tensor's device

  // The numbers, in the device's memory. Requires: T is the element type (checked by `data` for
  // callers on the host; `raw` is for kernels, whose dtype was checked by the operation).
  template <class T>
  T* data() const {
    check_dtype(dtype_of<T>);
    return static_cast<T*>(data_);
  }
  template <class T>
  MOCO_ALWAYS_INLINE T* raw() const {
    return static_cast<T*>(data_);
  }
  void* raw_bytes() const { return data_; }
  // The allocation, without keeping it: expired once no tensor uses it.
  std::weak_ptr<const void> storage() const { return storage_; }

  // Views. reshape requires the same numel; rows is [begin, end) of the outermost dimension.
  Tensor reshape(const Shape& shape) const;
  Tensor rows(int64_t begin, int64_t end) const;

  Tensor clone() const;
  Tensor to(DType dtype) const;    // converted copy; *this where it has the type already
  Tensor to(Device device) const;  // copy over there; *this where it is there already
  // A copy with its dimensions reordered: result dim i is this tensor's dim axes[i]. Host memory
  // only; it is how weights and images cross between the engine's layout and PyTorch's.
  Tensor permute(const std::vector<int>& axes) const;
  void copy_from(const Tensor& source) const;  // same shape and dtype, any device
  void fill(double value) const;

  // For tests, printing and metrics; from any device and dtype.
  double item() const;  // Requires: numel() == 1.
  std::vector<double> to_vector() const;

  std::string describe() const;  // "f32 [128, 32, 32, 3]", or "undefined"

 private:
  void check_dtype(DType wanted) const;

  std::shared_ptr<void> storage_;  // the allocation; the backend gets it back from the last view
  void* data_ = nullptr;           // this view's first element
  Shape shape_;
  DType dtype_ = DType::f32;
  Device device_ = Device::cpu;
};

}  // namespace mocograd
