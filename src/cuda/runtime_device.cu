// The GPU: found once, on first use; memory; copies; errors. Everything runs on the default stream,
// in order, so that memory may be given back while the kernels that use it are still to run.
//
// The CUDA runtime is linked statically and finds the driver itself: without one, or without a GPU,
// the program runs and only Device::cuda is refused.
#include <string>

#include "cuda/capability.h"
#include "cuda/cuda_backend.h"
#include "tensor/error.h"

namespace mocograd::MOCO_CUDA {
namespace {

constexpr int kArchitectures[] = {__CUDA_ARCH_LIST__};  // that nvcc made code for: 750, 800, …

void check(cudaError_t status, const std::string& what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // so that the next call is not told of it again
  throw Error("cuda: " + what + ": " + cudaGetErrorString(status));
}

std::string version_text(int architecture) {  // 750 → "7.5"
  return std::to_string(architecture / 100) + "." + std::to_string(architecture / 10 % 10);
}

// Why the first GPU cannot be used, or nothing.
std::string find_problem() {
  int driver = 0, runtime = 0, devices = 0;
  cudaRuntimeGetVersion(&runtime);
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
    return "this machine has no NVIDIA driver";
  const cudaError_t status = cudaGetDeviceCount(&devices);
  cudaGetLastError();
  if (status == cudaErrorInsufficientDriver)
    return detail::concatenate("the NVIDIA driver is made for CUDA ", version_text(driver / 10),
                               ", this build needs ", version_text(runtime / 10));
  if (status == cudaErrorNoDevice || devices == 0) return "this machine has no NVIDIA GPU";
  if (status != cudaSuccess) return cudaGetErrorString(status);
  cudaDeviceProp gpu;
  check(cudaGetDeviceProperties(&gpu, 0), "the GPU's properties");
  const int architecture = gpu.major * 100 + gpu.minor * 10;
  if (architecture < kArchitectures[0])
    return detail::concatenate("the ", gpu.name, " has compute capability ",
                               version_text(architecture), ", this build has code for ",
                               version_text(kArchitectures[0]), " and newer");
  return "";
}

const std::string& problem() {
  static const std::string text = find_problem();
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

int architecture() {
  static const int architecture = [] {
    cudaDeviceProp gpu;
    check(cudaGetDeviceProperties(&gpu, 0), "the GPU's properties");
    return gpu.major * 100 + gpu.minor * 10;
  }();
  return architecture;
}

}  // namespace

std::string device_problem() {
  return problem();
}

void require_tensor_cores(Precision precision) {
  if (architecture() < 800)
    throw Error(detail::concatenate("--precision ", name_of(precision),
                                    ": it takes compute capability 8.0, this GPU has ",
                                    version_text(architecture())));
}

bool has_wgmma() {
#ifdef MOCO_HAS_SM90A
  return architecture() == 900;
#else
  return false;
#endif
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
  throw Error(detail::concatenate("cuda: cannot allocate ", bytes >> 20, " MiB: ", free >> 20,
                                  " of the GPU's ", total >> 20, " MiB are free"),
              "", "a smaller --batch or --queue needs less");
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
