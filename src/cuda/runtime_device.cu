// The GPU: found once, on first use; memory; copies; errors. Everything runs on the default stream,
// in order, so that memory may be given back while the kernels that use it are still to run.
//
// The CUDA runtime is linked statically and finds the driver itself: without one, or without a GPU,
// the program runs and only Device::cuda is refused.
#include <string>

#include "cuda/cuda_backend.h"
#include "cuda/device_problem.h"
#include "cuda/tensor_core_product.h"
#include "tensor/error.h"

namespace mocograd::MOCO_CUDA {
namespace {

constexpr int kArchitectures[] = {__CUDA_ARCH_LIST__};  // that nvcc made code for: 750, 800, …

void check(cudaError_t status, const std::string& what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // so that the next call is not told of it again
  throw Error("cuda: " + what + ": " + cudaGetErrorString(status));
}

int architecture_of(const cudaDeviceProp& gpu) {
  return gpu.major * 100 + gpu.minor * 10;
}

cudaDeviceProp first_gpu() {
  cudaDeviceProp gpu;
  check(cudaGetDeviceProperties(&gpu, 0), "the GPU's properties");
  return gpu;
}

__global__ void probe_kernel() {}

// What the driver says of the first GPU.
GpuFacts ask_driver() {
  GpuFacts facts;
  cudaRuntimeGetVersion(&facts.runtime);
  if (cudaDriverGetVersion(&facts.driver) != cudaSuccess) facts.driver = 0;
  if (facts.driver == 0) return facts;
  const cudaError_t status = cudaGetDeviceCount(&facts.devices);
  cudaGetLastError();
  facts.driver_too_old = status == cudaErrorInsufficientDriver;
  if (status != cudaSuccess && status != cudaErrorNoDevice)
    facts.other_error = cudaGetErrorString(status);
  if (status != cudaSuccess || facts.devices == 0) return facts;
  const cudaDeviceProp gpu = first_gpu();
  facts.name = gpu.name;
  facts.architecture = architecture_of(gpu);
  facts.lowest_architecture = kArchitectures[0];
  cudaFuncAttributes attributes;
  const cudaError_t probe = cudaFuncGetAttributes(&attributes, probe_kernel);
  cudaGetLastError();
  facts.has_code =
      probe != cudaErrorNoKernelImageForDevice && probe != cudaErrorInvalidDeviceFunction;
  return facts;
}

const std::string& problem() {
  static const std::string text = problem_of(ask_driver());
  return text;
}

// Freed memory stays with the process: a training step asks for the same sizes over and over.
void keep_freed_memory() {
  int device = 0;
  cudaMemPool_t pool;
  check(cudaGetDevice(&device), "the GPU in use");
  check(cudaDeviceGetDefaultMemPool(&pool, device), "the GPU's memory pool");
  uint64_t keep = UINT64_MAX;
  check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep),
        "the GPU's memory pool");
}

}  // namespace

std::string device_problem() {
  return problem();
}

int gpu_architecture() {
  static const int architecture = architecture_of(first_gpu());
  return architecture;
}

void require_tensor_cores() {
  static const std::string text = tf32_problem_of(gpu_architecture());
  if (!text.empty()) throw Error(text);
}

void* device_allocate(size_t bytes) {
  if (bytes == 0) return nullptr;
  static const bool ready = (keep_freed_memory(), true);
  static_cast<void>(ready);
  void* memory = nullptr;
  if (cudaMallocAsync(&memory, bytes, nullptr) == cudaSuccess) return memory;
  cudaGetLastError();
  size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  throw Error(no_memory_text(bytes, free, total), "", "a smaller --batch or --queue needs less");
}

void device_free(void* memory) {
  if (!memory) return;
  cudaFreeAsync(memory, nullptr);  // an error would be one of the kernels before, told elsewhere
}

// With host memory on either side it returns when the numbers are there.
void device_copy(void* to, const void* from, size_t bytes) {
  check(cudaMemcpy(to, from, bytes, cudaMemcpyDefault),
        detail::concatenate("a copy of ", bytes, " bytes"));
}

void device_synchronize() {
  check(cudaDeviceSynchronize(), "waiting for the GPU");
}

void check_launch(const char* kernel) {
  const cudaError_t status = cudaGetLastError();
  if (status != cudaSuccess) check(status, std::string("the launch of ") + kernel);
}

void allow_dynamic_shared(const void* kernel, size_t bytes) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(bytes)),
        detail::concatenate(bytes, " bytes of shared memory for a block"));
}

}  // namespace mocograd::MOCO_CUDA
