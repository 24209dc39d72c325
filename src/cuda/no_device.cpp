// Stands in for the GPU's backend in a build without nvcc.
#include "tensor/backend.h"

namespace mocograd::cuda_device {

std::string device_problem() {
  return "this build has no GPU code: it was made without nvcc";
}

Backend& cuda_backend() {
  throw Error("cuda: " + device_problem());
}

}  // namespace mocograd::cuda_device
