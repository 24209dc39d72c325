#include "moco/checkpoint.h"

#include <charconv>

namespace mocograd {
namespace {

std::string momentum_name(const std::string& parameter) {
  return "optimizer." + parameter + ".momentum_buffer";
}

const Tensor& find(const StateDict& state, const std::string& name, const Shape& shape) {
  const auto found = state.find(name);
  if (found == state.end()) throw Error("checkpoint: " + name + " is missing");
  if (found->second.shape() != shape)
    throw Error("checkpoint: " + name + " is " + found->second.describe() + ", expected " +
                shape.to_string());
  return found->second;
}

int64_t metadata_number(const NamedTensors& checkpoint, const std::string& name) {
  const auto found = checkpoint.metadata.find(name);
  int64_t value = 0;
  if (found != checkpoint.metadata.end()) {
    const std::string& text = found->second;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error == std::errc() && end == text.data() + text.size() && value >= 0) return value;
  }
  throw Error("checkpoint: the metadata have no usable " + name);
}

}  // namespace

StateDict checkpoint_state(Moco& moco, const Sgd* optimizer) {
  StateDict state;
  save_state(moco.encoder_q(), "encoder_q.", state);
  save_state(moco.encoder_k(), "encoder_k.", state);
  state["queue"] = moco.queue().keys().to(Device::cpu).permute({1, 0});
  state["queue_ptr"] =
      Tensor::full({1}, static_cast<double>(moco.queue().pointer()), {.dtype = DType::i64});
  if (optimizer) {
    for (const Sgd::Slot& slot : optimizer->slots())
      state[momentum_name(slot.parameter.name)] =
          to_pytorch(slot.momentum_buffer, slot.parameter.layout);
  }
  return state;
}

void restore_state(const StateDict& state, Moco& moco, Sgd* optimizer) {
  // Everything is looked up and checked before anything is written.
  const StateDict known = checkpoint_state(moco, optimizer);
  for (const auto& [name, tensor] : known) find(state, name, tensor.shape());
  for (const auto& [name, tensor] : state) {
    if (!known.contains(name)) throw Error("checkpoint: " + name + " is not part of this network");
  }
  const Tensor pointer = state.at("queue_ptr");
  if (pointer.dtype() != DType::i64 || pointer.item() < 0 ||
      pointer.item() >= static_cast<double>(moco.queue().size()))
    throw Error("checkpoint: queue_ptr must be an I64 in [0, " +
                std::to_string(moco.queue().size()) + ")");

  load_state(moco.encoder_q(), "encoder_q.", state);
  load_state(moco.encoder_k(), "encoder_k.", state);
  const Tensor& keys = moco.queue().keys();
  moco.queue().restore(state.at("queue").permute({1, 0}).to(keys.dtype()),
                       static_cast<int64_t>(pointer.item()));
  if (!optimizer) return;
  for (const Sgd::Slot& slot : optimizer->slots()) {
    const Tensor& buffer = state.at(momentum_name(slot.parameter.name));
    slot.momentum_buffer.copy_from(
        from_pytorch(buffer, slot.parameter.layout).to(slot.momentum_buffer.dtype()));
  }
}

void save_checkpoint(const std::string& path, const PretrainConfig& config, Progress progress,
                     Moco& moco, const Sgd& optimizer) {
  NamedTensors checkpoint;
  checkpoint.tensors = checkpoint_state(moco, &optimizer);
  for (const auto& [name, value] : to_strings(config))
    checkpoint.metadata["config." + name] = value;
  checkpoint.metadata["epoch"] = std::to_string(progress.epoch);
  checkpoint.metadata["step"] = std::to_string(progress.step);
  write_safetensors(path, checkpoint);
}

PretrainConfig checkpoint_config(const NamedTensors& checkpoint) {
  const std::string prefix = "config.";
  std::map<std::string, std::string> strings;
  for (const auto& [name, value] : checkpoint.metadata) {
    if (name.rfind(prefix, 0) == 0) strings[name.substr(prefix.size())] = value;
  }
  if (!strings.contains("arch"))
    throw Error("checkpoint: the metadata hold no configuration", "",
                "was this file written by moco pretrain?");
  return config_from_strings(strings);
}

Progress checkpoint_progress(const NamedTensors& checkpoint) {
  return {metadata_number(checkpoint, "epoch"), metadata_number(checkpoint, "step")};
}

}  // namespace mocograd
