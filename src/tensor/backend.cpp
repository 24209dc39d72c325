#include "tensor/backend.h"

#include <cstdint>

namespace mocograd {

size_t Backend::total_memory() const {
  return SIZE_MAX;
}

std::function<void()> Backend::record(const std::function<void()>&) {
  return {};
}

void Backend::beside(const std::function<void()>& work) {
  work();
}

void Backend::join() {}

// Each in its own floor, which this one must not include.
Backend& cpu_backend();  // of the instruction set in use (cpu/instruction_set.h)
namespace cuda_device {  // nvcc's build of the CUDA kernels, or src/cuda/no_device.cpp
std::string device_problem();
Backend& cuda_backend();
}  // namespace cuda_device
namespace cuda_emulated {  // the same kernels on the CPU, thread by thread
Backend& cuda_backend();
}

std::string device_problem(Device device) {
  return device == Device::cuda ? cuda_device::device_problem() : "";
}

Backend& backend_of(Device device) {
  switch (device) {
    case Device::cpu:
      return cpu_backend();
    case Device::cuda: {
      const std::string problem = device_problem(device);
      if (!problem.empty()) throw Error("device cuda: " + problem);
      return cuda_device::cuda_backend();
    }
    case Device::cuda_emulated:
      return cuda_emulated::cuda_backend();
  }
  MOCO_CHECK(false, "device: unknown value ", static_cast<int>(device));
}

}  // namespace mocograd
