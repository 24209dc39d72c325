// Memory of the CUDA backend, and the backend object itself.
#include "cuda/blocks.h"
#include "cuda/cuda_backend.h"

namespace mocograd::MOCO_CUDA {

CudaBackend::~CudaBackend() = default;

Backend& cuda_backend() {
  static CudaBackend* const backend = new CudaBackend;  // never destroyed: tensors may outlive main
  return *backend;
}

std::shared_ptr<void> CudaBackend::allocate(size_t bytes) {
  return std::shared_ptr<void>(device_allocate(bytes > 0 ? bytes : 1), device_free);
}

void CudaBackend::copy(const Tensor& x, const Tensor& y) {
  if (x.bytes() > 0) device_copy(y.raw_bytes(), x.raw_bytes(), x.bytes());
}

void CudaBackend::synchronize() {
  device_synchronize();
}

}  // namespace mocograd::MOCO_CUDA
