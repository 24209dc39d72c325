#include "cuda/device_problem.h"

#include "tensor/error.h"

namespace mocograd {
namespace {

std::string version_text(int version) {  // CUDA's: 12040 → "12.4"
  return detail::concatenate(version / 1000, ".", version % 1000 / 10);
}

std::string capability_text(int architecture) {  // 750 → "7.5"
  return detail::concatenate(architecture / 100, ".", architecture % 100 / 10);
}

}  // namespace

std::string problem_of(const GpuFacts& gpu) {
  if (gpu.driver == 0) return "this machine has no NVIDIA driver";
  if (gpu.driver_too_old)
    return detail::concatenate("the NVIDIA driver is made for CUDA ", version_text(gpu.driver),
                               ", this build needs ", version_text(gpu.runtime));
  if (!gpu.other_error.empty()) return "the NVIDIA driver answers: " + gpu.other_error;
  if (gpu.devices == 0) return "this machine has no NVIDIA GPU";
  const std::string capability = capability_text(gpu.architecture);
  if (gpu.architecture < gpu.lowest_architecture)
    return detail::concatenate("the ", gpu.name, " has compute capability ", capability,
                               ", this build has code for ",
                               capability_text(gpu.lowest_architecture), " and newer");
  if (!gpu.has_code)
    return detail::concatenate(
        "the ", gpu.name, " has compute capability ", capability,
        ", for which this build has no code: make CUDA_ARCHS=", gpu.architecture / 10);
  return "";
}

bool is_unusable(const GpuFacts& gpu) {
  const bool is_there = gpu.devices > 0 || !gpu.other_error.empty();
  return is_there && !problem_of(gpu).empty();
}

std::string tensor_core_problem_of(Precision precision, int architecture) {
  if (architecture >= 800) return "";
  return detail::concatenate("--precision ", name_of(precision),
                             ": it takes compute capability 8.0, this GPU has ",
                             capability_text(architecture));
}

std::string kernels_of_gpu(int architecture, bool has_wgmma, Precision precision) {
  const std::string kernels = "cuda " + capability_text(architecture);
  if (precision == Precision::fp32) return kernels;
  return kernels + (has_wgmma && precision == Precision::bf16 ? ", wgmma" : ", mma");
}

std::string no_memory_text(size_t bytes, size_t free, size_t total) {
  constexpr size_t kMiB = size_t{1} << 20;
  const std::string asked = bytes < kMiB ? detail::concatenate(bytes, " bytes")
                                         : detail::concatenate(bytes / kMiB, " MiB");
  return detail::concatenate("cuda: cannot allocate ", asked, ": ", free / kMiB, " of the GPU's ",
                             total / kMiB, " MiB are free");
}

}  // namespace mocograd
