// Stands in for the GPU's backend in a build without nvcc.
#include <vector>

#include "cuda/device_problem.h"
#include "cuda/peak.h"
#include "tensor/backend.h"
#include "tensor/rung.h"

namespace mocograd::cuda_device {

std::string device_problem() {
  return "this build has no GPU code: it was made with CUDA=0, or without nvcc";
}

Backend& cuda_backend() {
  throw Error("cuda: " + device_problem());
}

bool has_unusable_gpu() {
  return false;
}

// Not reached: there is no such device to be asked or measured.
int gpu_architecture() {
  throw Error("cuda: " + device_problem());
}
bool has_wgmma() {
  throw Error("cuda: " + device_problem());
}
std::vector<Rung> gemm_ladder() {
  throw Error("cuda: " + device_problem());
}
std::vector<Rung> conv_ladder() {
  throw Error("cuda: " + device_problem());
}
std::vector<Rung> cublas_products() {
  throw Error("cuda: " + device_problem());
}
GpuLimits measure_limits(const LimitWork&) {
  throw Error("cuda: " + device_problem());
}
double measure_peak_flops(const LimitWork&) {
  throw Error("cuda: " + device_problem());
}

}  // namespace mocograd::cuda_device
