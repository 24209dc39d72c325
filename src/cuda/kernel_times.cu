// MOCO_KERNEL_TIMES=1: how long the GPU takes for each kernel, where there is no profiler. Events
// around each launch are read a thousand at a time; when the program ends, stderr gets of each kernel
//
//   kernel LAUNCHES MILLISECONDS NAME
//
// Of the engine's own kernels alone: cuBLAS's and copies are not timed. Steps are not recorded
// meanwhile (memory.cu), so that each launch is seen.
#include <cxxabi.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "cuda/launch.h"

namespace mocograd::MOCO_CUDA {
namespace {

std::string name_of(const void* kernel) {
#if CUDART_VERSION >= 12030
  const char* mangled = nullptr;
  if (cudaFuncGetName(&mangled, kernel) == cudaSuccess) {
    int status = 0;
    char* const name = abi::__cxa_demangle(mangled, nullptr, nullptr, &status);
    const std::string text = status == 0 ? name : mangled;
    std::free(name);
    return text;
  }
#endif
  char text[32];
  std::snprintf(text, sizeof text, "%p", kernel);
  return text;
}

class KernelTimes {
 public:
  ~KernelTimes() {
    read_events();
    for (const auto& [kernel, sum] : sums_)
      std::fprintf(stderr, "kernel %ld %.6f %s\n", sum.launches, sum.milliseconds,
                   name_of(kernel).c_str());
  }

  cudaEvent_t begin() { return record(); }
  void end(const void* kernel, cudaEvent_t begin) {
    const std::lock_guard<std::mutex> lock(mutex_);
    pending_.push_back({kernel, begin, record()});
    if (pending_.size() >= 1000) read_events();
  }

 private:
  struct Launch {
    const void* kernel;
    cudaEvent_t begin, end;
  };
  struct Sum {
    long launches = 0;
    double milliseconds = 0;
  };

  static cudaEvent_t record() {
    cudaEvent_t event = nullptr;
    cudaEventCreate(&event);
    cudaEventRecord(event, stream());
    return event;
  }

  void read_events() {
    for (const Launch& launch : pending_) {
      float milliseconds = 0;
      cudaEventSynchronize(launch.end);
      cudaEventElapsedTime(&milliseconds, launch.begin, launch.end);
      Sum& sum = sums_[launch.kernel];
      ++sum.launches;
      sum.milliseconds += milliseconds;
      cudaEventDestroy(launch.begin);
      cudaEventDestroy(launch.end);
    }
    pending_.clear();
  }

  std::mutex mutex_;
  std::vector<Launch> pending_;
  std::map<const void*, Sum> sums_;
};

KernelTimes& times() {
  static KernelTimes instance;
  return instance;
}

}  // namespace

bool kernels_are_timed() {
  static const char* const text = std::getenv("MOCO_KERNEL_TIMES");
  return text && std::string(text) == "1";
}

LaunchTimer::LaunchTimer(const void* kernel)
    : kernel_(kernel), begin_(kernels_are_timed() ? times().begin() : nullptr) {}

LaunchTimer::~LaunchTimer() {
  if (begin_) times().end(kernel_, static_cast<cudaEvent_t>(begin_));
}

}  // namespace mocograd::MOCO_CUDA
