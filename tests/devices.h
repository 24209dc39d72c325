// The devices that tests of what is above the kernels run on.
#pragma once

#include <vector>

#include "tensor/backend.h"

namespace mocograd {

// The emulator, and a GPU where there is one.
inline std::vector<Device> far_devices() {
  std::vector<Device> devices = {Device::cuda_emulated};
  if (device_problem(Device::cuda).empty()) devices.push_back(Device::cuda);
  return devices;
}

// Those and the CPU.
inline std::vector<Device> all_devices() {
  std::vector<Device> devices = far_devices();
  devices.insert(devices.begin(), Device::cpu);
  return devices;
}

}  // namespace mocograd
