#include "cuda/ladder/ladder.h"

namespace mocograd {

namespace cuda_device {  // nvcc's build, or no_device.cpp
std::vector<Rung> gemm_ladder();
std::vector<Rung> conv_ladder();
}  // namespace cuda_device
namespace cuda_emulated {
std::vector<Rung> gemm_ladder();
std::vector<Rung> conv_ladder();
}  // namespace cuda_emulated

std::vector<Rung> gemm_ladder(Device device) {
  return device == Device::cuda ? cuda_device::gemm_ladder() : cuda_emulated::gemm_ladder();
}

std::vector<Rung> conv_ladder(Device device) {
  return device == Device::cuda ? cuda_device::conv_ladder() : cuda_emulated::conv_ladder();
}

}  // namespace mocograd
