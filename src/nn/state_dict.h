// State dict: a module's parameters and buffers by name, in PyTorch's layouts.
#pragma once

#include <map>
#include <string>

#include "nn/module.h"

namespace mocograd {

using StateDict = std::map<std::string, Tensor>;

// Between the engine's layout and PyTorch's (Layout, nn/module.h). Copies, in the host's memory.
Tensor to_pytorch(const Tensor& tensor, Layout layout);
Tensor from_pytorch(const Tensor& tensor, Layout layout);

// A tensor as it was, in the host's memory: from then on the tensor may change.
struct HostCopy {
  Tensor tensor;
  Layout layout = Layout::plain;
};
using HostCopies = std::map<std::string, HostCopy>;

HostCopy host_copy(const Tensor& tensor, Layout layout);
// Converts them, which takes longer than copying did, on any thread; gives each up once it is
// converted.
StateDict to_pytorch(HostCopies copies);

// Adds prefix + name for every parameter and buffer.
void copy_state(const Module& module, const std::string& prefix, HostCopies& copies);
void save_state(const Module& module, const std::string& prefix, StateDict& state);

// Are both floating-point, or both integers?
bool same_kind(DType a, DType b);

// Sets every parameter and buffer from prefix + name, converted to the module's dtype. Throws,
// naming the tensor, where one is missing or has another shape or kind of dtype; the module is then
// unchanged.
void load_state(Module& module, const std::string& prefix, const StateDict& state);

}  // namespace mocograd
