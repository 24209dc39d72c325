#include "nn/state_dict.h"

namespace mocograd {
namespace {

// A tensor of the module and what the state dict holds for it.
struct Match {
  Tensor target, value;
};

Match match(const std::string& name, const Tensor& target, Layout layout, const StateDict& state) {
  const auto found = state.find(name);
  if (found == state.end()) throw Error("state dict: " + name + " is missing");
  const Tensor& given = found->second;
  if (given.ndim() == target.ndim() && same_kind(given.dtype(), target.dtype())) {
    const Tensor value = from_pytorch(given, layout);
    if (value.shape() == target.shape()) return {target, value.to(target.dtype())};
  }
  throw Error("state dict: " + name + " is " + given.describe() + ", the network needs " +
              to_pytorch(target, layout).describe());
}

}  // namespace

Tensor to_pytorch(const Tensor& tensor, Layout layout) {
  const Tensor host = tensor.to(Device::cpu);
  if (layout == Layout::conv_weight) return host.permute({3, 2, 0, 1});
  if (layout == Layout::transposed) return host.permute({1, 0});
  return host.clone();
}

Tensor from_pytorch(const Tensor& tensor, Layout layout) {
  if (layout == Layout::conv_weight) return tensor.permute({2, 3, 1, 0});
  if (layout == Layout::transposed) return tensor.permute({1, 0});
  return tensor.clone();
}

HostCopy host_copy(const Tensor& tensor, Layout layout) {
  return {tensor.device() == Device::cpu ? tensor.clone() : tensor.to(Device::cpu), layout};
}

StateDict to_pytorch(HostCopies copies) {
  StateDict state;
  while (!copies.empty()) {
    const auto copy = copies.extract(copies.begin());
    const auto& [tensor, layout] = copy.mapped();
    state[copy.key()] = layout == Layout::plain ? tensor : to_pytorch(tensor, layout);
  }
  return state;
}

void copy_state(const Module& module, const std::string& prefix, HostCopies& copies) {
  for (const NamedParameter& parameter : module.named_parameters())
    copies[prefix + parameter.name] = host_copy(parameter.variable->data(), parameter.layout);
  for (const NamedBuffer& buffer : module.named_buffers())
    copies[prefix + buffer.name] = host_copy(*buffer.tensor, Layout::plain);
}

void save_state(const Module& module, const std::string& prefix, StateDict& state) {
  HostCopies copies;
  copy_state(module, prefix, copies);
  for (auto& [name, tensor] : to_pytorch(std::move(copies))) state[name] = tensor;
}

bool same_kind(DType a, DType b) {
  const auto floating = [](DType dtype) { return dtype != DType::i64 && dtype != DType::u8; };
  return floating(a) == floating(b);
}

void load_state(Module& module, const std::string& prefix, const StateDict& state) {
  std::vector<Match> matches;
  for (const NamedParameter& parameter : module.named_parameters())
    matches.push_back(
        match(prefix + parameter.name, parameter.variable->data(), parameter.layout, state));
  for (const NamedBuffer& buffer : module.named_buffers())
    matches.push_back(match(prefix + buffer.name, *buffer.tensor, Layout::plain, state));
  for (const Match& found : matches) found.target.copy_from(found.value);
}

}  // namespace mocograd
