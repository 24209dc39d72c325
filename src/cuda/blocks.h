// How work is laid out over blocks of threads, and memory that lives as long as a few kernels.
#pragma once

#include "cuda/cuda_backend.h"
#include "cuda/launch.h"

namespace mocograd {
class Cublas;
}

namespace mocograd::MOCO_CUDA {

// The device of this namespace.
#ifdef __CUDACC__
inline constexpr Device kDevice = Device::cuda;
#else
inline constexpr Device kDevice = Device::cuda_emulated;
#endif

// cublas_of(device) (cublas.h), made ready to run on the stream of all kernels; nullptr where there is
// none.
const Cublas* ready_cublas(Device device);

constexpr int kThreads = 256;  // a block, unless a kernel says otherwise

__host__ __device__ inline int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

inline Grid blocks_of(int threads, int64_t blocks) {
  MOCO_CHECK(blocks < int64_t{1} << 31, "cuda: ", blocks, " blocks are more than a GPU launches");
  return {dim3(static_cast<unsigned>(blocks)), dim3(static_cast<unsigned>(threads))};
}

// One thread for each of n elements: the kernel begins with
//   const int64_t i = grid_index();
//   if (i >= n) return;
inline Grid one_thread_each(int64_t n) {
  return blocks_of(kThreads, ceil_div(n, kThreads));
}
__device__ inline int64_t grid_index() {
  return int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
}

// Room for `count` elements on the device. Kernels run in order, so it may go out of scope as soon as
// the kernels that use it are launched.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count)
      : memory_(cuda_backend().allocate(static_cast<size_t>(count) * sizeof(T))) {}
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* data() const { return static_cast<T*>(memory_.get()); }

 private:
  const std::shared_ptr<void> memory_;
};

// y_i = Σ_s part_si, in the order of s: what several blocks summed.     part: [parts, n]; y: [n]
template <class T, class Sum>
__global__ void add_parts_kernel(int64_t n, int64_t parts, const T* part, Sum* y) {
  const int64_t i = grid_index();
  if (i >= n) return;
  T sum = 0;
#pragma unroll 16  // so many loads at a time
  for (int64_t s = 0; s < parts; ++s) sum += part[s * n + i];
  y[i] = static_cast<Sum>(sum);
}
template <class T, class Sum>
void add_parts(int64_t n, int64_t parts, const T* part, Sum* y) {
  launch(add_parts_kernel<T, Sum>, one_thread_each(n), n, parts, part, y);
}

}  // namespace mocograd::MOCO_CUDA
