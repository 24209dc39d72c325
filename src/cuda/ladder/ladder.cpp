#include "cuda/ladder/ladder.h"

namespace mocograd {

namespace cuda_device {  // nvcc's build, or no_device.cpp
std::vector<Rung> gemm_ladder();
std::vector<Rung> conv_ladder();
std::vector<Rung> cublas_products();
}  // namespace cuda_device
namespace cuda_emulated {
std::vector<Rung> gemm_ladder();
std::vector<Rung> conv_ladder();
std::vector<Rung> cublas_products();
}  // namespace cuda_emulated

std::vector<Rung> gemm_ladder(Device device) {
  return device == Device::cuda ? cuda_device::gemm_ladder() : cuda_emulated::gemm_ladder();
}

std::vector<Rung> conv_ladder(Device device) {
  return device == Device::cuda ? cuda_device::conv_ladder() : cuda_emulated::conv_ladder();
}

std::vector<Rung> cublas_products(Device device) {
  return device == Device::cuda ? cuda_device::cublas_products() : cuda_emulated::cublas_products();
}

}  // namespace mocograd
