#include "debug/dump.h"

namespace mocograd {
namespace {

Tensor in_pytorch_order(const Tensor& tensor) {
  const Tensor host = tensor.to(Device::cpu);
  return host.ndim() == 4 ? host.permute({0, 3, 1, 2}) : host.clone();
}

}  // namespace

void add_to_dump(const std::string& name, const Tensor& tensor, NamedTensors& dump) {
  dump.tensors[name] = tensor;
  dump.metadata[kDumpOrderKey] += name + "\n";
}

void Dumper::begin_step(int64_t step) {
  step_ = step;
  names_.begin_step();
}

void Dumper::operation(const Operation& operation) {
  const std::string name = names_.name(operation);
  const bool forward = operation.phase == Phase::forward;
  const bool backward =
      operation.phase == Phase::backward && std::string(operation.op) != "accumulate";
  if (!forward && !backward) return;
  const std::string key =
      "step." + std::to_string(step_) + "." + name_of(operation.phase) + "." + name;
  add_to_dump(key, in_pytorch_order(forward ? operation.outputs[0] : operation.inputs[0]), dump_);
}

}  // namespace mocograd
