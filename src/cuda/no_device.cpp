// Stands in for the GPU's backend in a build without nvcc.
#include "cuda/peak.h"
#include "tensor/backend.h"

namespace mocograd::cuda_device {

std::string device_problem() {
  return "this build has no GPU code: it was made without nvcc";
}

Backend& cuda_backend() {
  throw Error("cuda: " + device_problem());
}

// Not reached: there is no such device to be measured.
GpuLimits measure_limits(const LimitWork&) {
  throw Error("cuda: " + device_problem());
}
double measure_peak_flops(const LimitWork&) {
  throw Error("cuda: " + device_problem());
}

}  // namespace mocograd::cuda_device
