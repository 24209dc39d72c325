// The GPU: found once, on first use; memory; copies; recordings; errors. Everything runs on one stream,
// in order, so that memory may be given back while the kernels that use it are still to run; but for
// the branches of recordings, which have a stream beside it.
//
// The CUDA runtime is linked statically and finds the driver itself: without one, or without a GPU,
// the program runs and only Device::cuda is refused.
#include <memory>
#include <string>

#include "cuda/capability.h"
#include "cuda/cuda_backend.h"
#include "cuda/device_problem.h"
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

const GpuFacts& facts() {
  static const GpuFacts asked = ask_driver();
  return asked;
}

// Waits for no other stream: the one that waits for all would end a recording.
cudaStream_t new_stream() {
  cudaStream_t made;
  check(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking), "a stream of the GPU");
  return made;
}

bool recording = false, in_branch = false;

cudaStream_t main_stream() {
  static const cudaStream_t only = new_stream();
  return only;
}

cudaStream_t branch_stream() {
  static const cudaStream_t only = new_stream();
  return only;
}

// What `later` is given from now on runs after all that `earlier` has been given.
void run_after(cudaStream_t later, cudaStream_t earlier) {
  static const cudaEvent_t so_far = [] {
    cudaEvent_t made;
    check(cudaEventCreateWithFlags(&made, cudaEventDisableTiming), "an event of the GPU");
    return made;
  }();
  check(cudaEventRecord(so_far, earlier), "an event of the GPU");
  check(cudaStreamWaitEvent(later, so_far), "an event of the GPU");
}

// Memory is asked for on the stream where it is used. In a recording that would be recorded, too, so
// then it is asked for on a stream beside it, on which nothing runs.
cudaStream_t memory_stream() {
  static const cudaStream_t beside = new_stream();
  return recording ? beside : main_stream();
}

// Freed memory stays with the process: a training step asks for the same sizes over and over. The
// pool of cudaMallocAsync is the only cache there is; what it holds beyond the tensors is what the
// largest step so far needed and is given out again to any size that fits.
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
  return problem_of(facts());
}

bool has_unusable_gpu() {
  return is_unusable(facts());
}

int gpu_architecture() {
  static const int architecture = architecture_of(first_gpu());
  return architecture;
}

int multiprocessors() {
  static const int count = first_gpu().multiProcessorCount;
  return count;
}

void require_tensor_cores(Precision precision) {
  const std::string text = tensor_core_problem_of(precision, gpu_architecture());
  if (!text.empty()) throw Error(text);
}

bool has_wgmma() {
#ifdef MOCO_HAS_SM90A
  return gpu_architecture() == 900;
#else
  return false;
#endif
}

void* device_allocate(size_t bytes) {
  if (bytes == 0) return nullptr;
  static const bool ready = (keep_freed_memory(), true);
  static_cast<void>(ready);
  void* memory = nullptr;
  const cudaError_t status = cudaMallocAsync(&memory, bytes, memory_stream());
  if (status == cudaSuccess) {
    if (recording) check(cudaStreamSynchronize(memory_stream()), "memory for a recording");
    return memory;
  }
  if (status != cudaErrorMemoryAllocation) check(status, "asking for memory");
  cudaGetLastError();
  size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  throw Error(no_memory_text(bytes, free, total), "", kNoMemoryHint);
}

void device_free(void* memory) {
  if (!memory) return;
  // An error would be one of the kernels before, told elsewhere.
  cudaFreeAsync(memory, main_stream());
}

size_t device_total_memory() {
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "the GPU's memory");
  return total;
}

// The host's memory is pageable: from there the driver takes the bytes to a place of its own before the
// call returns, whether or not the GPU is busy; in the other direction it waits for the copy (CUDA's
// "API synchronization behavior").
void device_copy(void* to, const void* from, size_t bytes) {
  MOCO_CHECK(!recording, "cuda: a copy from or to the host cannot be recorded");
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream()),
        detail::concatenate("a copy of ", bytes, " bytes"));
}

void device_move(void* to, const void* from, size_t bytes) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream()),
        detail::concatenate("a copy of ", bytes, " bytes on the GPU"));
}

void device_poison(void* /*p*/, size_t /*bytes*/) {}

void device_synchronize() {
  check(cudaStreamSynchronize(stream()), "waiting for the GPU");
}

cudaStream_t stream() {
  return in_branch ? branch_stream() : main_stream();
}

// Waits first: what was freed before can then be given out on the other stream.
void start_recording() {
  device_synchronize();
  check(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeRelaxed), "recording on the GPU");
  recording = true;
}

std::function<void()> stop_recording() {
  recording = false;
  cudaGraph_t graph = nullptr;
  check(cudaStreamEndCapture(stream(), &graph), "recording on the GPU");
  cudaGraphExec_t launches = nullptr;
  const cudaError_t status = cudaGraphInstantiate(&launches, graph, 0);
  cudaGraphDestroy(graph);
  check(status, "preparing what was recorded for the GPU");
  const std::shared_ptr<CUgraphExec_st> owner(launches, cudaGraphExecDestroy);
  return [owner] { check(cudaGraphLaunch(owner.get(), stream()), "launching what was recorded"); };
}

void abandon_recording() {
  recording = in_branch = false;
  cudaGraph_t graph = nullptr;
  cudaStreamEndCapture(stream(), &graph);
  if (graph) cudaGraphDestroy(graph);
  cudaGetLastError();  // of the recording, which has failed before
}

void begin_branch() {
  run_after(branch_stream(), main_stream());
  in_branch = true;
}

void end_branch() {
  in_branch = false;
}

void join_branch() {
  run_after(main_stream(), branch_stream());
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
