#include "tensor/tensor.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "tensor/backend.h"

namespace mocograd {

const char* name_of(Device device) {
  switch (device) {
    case Device::cpu:
      return "cpu";
    case Device::cuda:
      return "cuda";
    case Device::cuda_emulated:
      return "cuda-emulated";
  }
  MOCO_CHECK(false, "device: unknown value ", static_cast<int>(device));
}

Tensor Tensor::empty(const Shape& shape, TensorOptions options) {
  Tensor tensor;
  tensor.shape_ = shape;
  tensor.dtype_ = options.dtype;
  tensor.device_ = options.device;
  tensor.storage_ = backend_of(options.device).allocate(tensor.bytes());
  tensor.data_ = tensor.storage_.get();
  return tensor;
}

Tensor Tensor::zeros(const Shape& shape, TensorOptions options) {
  return full(shape, 0, options);
}

Tensor Tensor::full(const Shape& shape, double value, TensorOptions options) {
  Tensor tensor = empty(shape, options);
  tensor.fill(value);
  return tensor;
}

Tensor Tensor::from(const std::vector<double>& values, const Shape& shape, TensorOptions options) {
  MOCO_CHECK(static_cast<int64_t>(values.size()) == shape.numel(), "tensor: ", values.size(),
             " values for shape ", shape.to_string());
  Tensor host = empty(shape, {options.dtype, Device::cpu});
  with_element_type(options.dtype, [&](auto type) {
    using T = decltype(type);
    for (size_t i = 0; i < values.size(); ++i) host.raw<T>()[i] = static_cast<T>(values[i]);
  });
  if (options.device == Device::cpu) return host;
  Tensor tensor = empty(shape, options);
  tensor.copy_from(host);
  return tensor;
}

Tensor Tensor::empty_like(const Tensor& other) {
  return empty(other.shape(), other.options());
}
Tensor Tensor::zeros_like(const Tensor& other) {
  return zeros(other.shape(), other.options());
}

Backend& Tensor::backend() const {
  MOCO_CHECK(defined(), "tensor: used before it was given a value");
  return backend_of(device_);
}

Tensor Tensor::reshape(const Shape& shape) const {
  MOCO_CHECK(defined(), "reshape: of an undefined tensor");
  MOCO_CHECK(shape.numel() == numel(), "reshape: ", shape_.to_string(), " has ", numel(),
             " elements, ", shape.to_string(), " has ", shape.numel());
  Tensor view = *this;
  view.shape_ = shape;
  return view;
}

Tensor Tensor::rows(int64_t begin, int64_t end) const {
  MOCO_CHECK(ndim() >= 1, "rows: a scalar has none");
  MOCO_CHECK(0 <= begin && begin <= end && end <= dim(0), "rows: [", begin, ", ", end,
             ") is outside of ", shape_.to_string());
  std::vector<int64_t> dims = shape_.to_vector();
  const int64_t row_numel = dims[0] == 0 ? 0 : numel() / dims[0];
  dims[0] = end - begin;
  Tensor view = *this;
  view.shape_ = Shape(dims);
  view.data_ = static_cast<char*>(data_) + static_cast<size_t>(begin * row_numel) * size_of(dtype_);
  return view;
}

Tensor Tensor::clone() const {
  Tensor copy = empty_like(*this);
  copy.copy_from(*this);
  return copy;
}

Tensor Tensor::to(DType dtype) const {
  if (dtype == dtype_) return *this;
  Tensor converted = empty(shape_, {dtype, device_});
  backend().convert(*this, converted);
  return converted;
}

Tensor Tensor::to(Device device) const {
  if (device == device_) return *this;
  Tensor moved = empty(shape_, {dtype_, device});
  moved.copy_from(*this);
  return moved;
}

void Tensor::copy_from(const Tensor& source) const {
  MOCO_CHECK(defined() && source.defined() && shape_ == source.shape_ && dtype_ == source.dtype_,
             "copy: cannot copy ", source.describe(), " to ", describe());
  const bool both_far = device_ != Device::cpu && source.device_ != Device::cpu;
  if (both_far && device_ != source.device_) return copy_from(source.to(Device::cpu));
  // The device that is not the host's memory knows how to reach both.
  Backend& copier = device_ == Device::cpu ? source.backend() : backend();
  copier.copy(source, *this);
}

void Tensor::fill(double value) const {
  backend().fill(*this, value);
}

double Tensor::item() const {
  MOCO_CHECK(defined() && numel() == 1, "item: needs one element, got ", describe());
  return to_vector()[0];
}

std::vector<double> Tensor::to_vector() const {
  MOCO_CHECK(defined(), "tensor: used before it was given a value");
  const Tensor host = to(Device::cpu);
  std::vector<double> values(static_cast<size_t>(numel()));
  with_element_type(dtype_, [&](auto type) {
    using T = decltype(type);
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(host.raw<T>()[i]);
  });
  return values;
}

Tensor Tensor::permute(const std::vector<int>& axes) const {
  std::vector<int> all(static_cast<size_t>(ndim()));
  std::iota(all.begin(), all.end(), 0);
  MOCO_CHECK(defined() && device_ == Device::cpu &&
                 std::is_permutation(axes.begin(), axes.end(), all.begin(), all.end()),
             "permute: ", axes.size(), " axes for ", describe(),
             " (each once, in the host's memory)");
  if (axes.empty()) return clone();
  std::vector<int64_t> dims, source_stride, target_stride(axes.size(), 1);
  for (const int axis : axes) {
    dims.push_back(shape_[axis]);
    source_stride.push_back(1);
    for (int j = axis + 1; j < ndim(); ++j) source_stride.back() *= shape_[j];
  }
  for (size_t d = axes.size() - 1; d > 0; --d) target_stride[d - 1] = target_stride[d] * dims[d];
  const Tensor permuted = empty(Shape(dims), options());

  // Neighbours in the source go to places that may be far apart: in blocks, whose places stay in the
  // cache until their neighbours come.
  constexpr int64_t kBlock = 16;
  const auto last = std::find(axes.begin(), axes.end(), ndim() - 1) - axes.begin();
  const int64_t apart = target_stride[static_cast<size_t>(last)];
  const int64_t neighbours = std::exchange(dims[static_cast<size_t>(last)], 1);
  with_element_type(dtype_, [&](auto type) {
    using T = decltype(type);
    const T* const source = static_cast<const T*>(data_);
    T* const target = static_cast<T*>(permuted.data_);
    for (int64_t begin = 0; begin < neighbours; begin += kBlock) {
      const int64_t count = std::min(kBlock, neighbours - begin);
      std::vector<int64_t> index(axes.size(), 0);  // of the other axes, counted up like an odometer
      for (int64_t i = 0; i < numel() / neighbours; ++i) {
        int64_t from = begin, to = begin * apart;
        for (size_t d = 0; d < index.size(); ++d) {
          from += index[d] * source_stride[d];
          to += index[d] * target_stride[d];
        }
        for (int64_t j = 0; j < count; ++j) target[to + j * apart] = source[from + j];
        for (size_t d = index.size(); d-- > 0 && ++index[d] == dims[d];) index[d] = 0;
      }
    }
  });
  return permuted;
}

std::string Tensor::describe() const {
  if (!defined()) return "undefined";
  return std::string(name_of(dtype_)) + " " + shape_.to_string();
}

void Tensor::check_dtype(DType wanted) const {
  MOCO_CHECK(defined(), "tensor: used before it was given a value");
  MOCO_CHECK(dtype_ == wanted, "tensor: read as ", name_of(wanted), " but it is ", describe());
}

}  // namespace mocograd
