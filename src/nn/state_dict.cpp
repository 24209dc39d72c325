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
  if (given.ndim() == target.ndim()) {
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
  return host.clone();
}

Tensor from_pytorch(const Tensor& tensor, Layout layout) {
  if (layout == Layout::conv_weight) return tensor.permute({2, 3, 1, 0});
  return tensor.clone();
}

void save_state(const Module& module, const std::string& prefix, StateDict& state) {
  for (const NamedParameter& parameter : module.named_parameters())
    state[prefix + parameter.name] = to_pytorch(parameter.variable->data(), parameter.layout);
  for (const NamedBuffer& buffer : module.named_buffers())
    state[prefix + buffer.name] = to_pytorch(*buffer.tensor, Layout::plain);
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
