#include "moco/checkpoint.h"

#include "io/text.h"

namespace mocograd {
namespace {

std::string momentum_name(const std::string& parameter) {
  return "optimizer." + parameter + ".momentum_buffer";
}

void check_tensor(const StateDict& state, const std::string& name, const Tensor& expected) {
  const auto found = state.find(name);
  if (found == state.end()) throw Error("checkpoint: " + name + " is missing");
  const Tensor& tensor = found->second;
  if (tensor.shape() != expected.shape() || !same_kind(tensor.dtype(), expected.dtype()))
    throw Error("checkpoint: " + name + " is " + tensor.describe() + ", expected " +
                expected.describe());
}

// Before a network is built by a configuration: what decides most of its size, as the tensors have it.
void check_sizes(const PretrainConfig& config, const StateDict& tensors) {
  const auto compare = [&](const char* field, int64_t value, const char* name, int dimension) {
    const auto found = tensors.find(name);
    if (found == tensors.end() || found->second.ndim() <= dimension) return;  // told elsewhere
    if (found->second.dim(dimension) != value)
      throw Error(detail::concatenate("checkpoint: the configuration has ", field, " ", value, ", ",
                                      name, " is ", found->second.describe()));
  };
  if (config.width > 0) compare("width", config.width, "encoder_q.conv1.weight", 0);
  compare("dim", config.dim, "queue", 0);
  compare("queue", config.queue, "queue", 1);
}

// Calls visit(metadata key, field) for every field.
template <class AnyProgress, class Visit>
void for_each_field(AnyProgress& progress, const Visit& visit) {
  visit("epoch", progress.epoch);
  visit("step", progress.step);
  visit("events", progress.events);
  visit("knn_epoch", progress.knn_epoch);
  visit("epoch_loss", progress.epoch_loss);
  visit("epoch_top1", progress.epoch_top1);
}

template <class AnyProvenance, class Visit>
void for_each_text(AnyProvenance& provenance, const Visit& visit) {
  visit("data_fingerprint", provenance.data_fingerprint);
  visit("kernels", provenance.kernels);
  visit("version", provenance.version);
}

const std::string& metadata_text(const NamedTensors& checkpoint, const std::string& key) {
  const auto found = checkpoint.metadata.find(key);
  if (found == checkpoint.metadata.end()) throw Error("checkpoint: the metadata have no " + key);
  return found->second;
}

HostCopies copies_of(Moco& moco, const Sgd* optimizer) {
  moco.finish_step();
  HostCopies copies;
  copy_state(moco.encoder_q(), "encoder_q.", copies);
  copy_state(moco.encoder_k(), "encoder_k.", copies);
  copies["queue"] = host_copy(moco.queue().keys(), Layout::transposed);
  copies["queue_ptr"] = {
      Tensor::full({1}, static_cast<double>(moco.queue().pointer()), {.dtype = DType::i64})};
  if (optimizer) {
    for (const Sgd::Slot& slot : optimizer->slots())
      copies[momentum_name(slot.parameter.name)] =
          host_copy(slot.momentum_buffer, slot.parameter.layout);
  }
  return copies;
}

}  // namespace

StateDict checkpoint_state(Moco& moco, const Sgd* optimizer) {
  return to_pytorch(copies_of(moco, optimizer));
}

void restore_state(const StateDict& state, Moco& moco, Sgd* optimizer) {
  // Everything is looked up and checked before anything is written.
  const StateDict known = checkpoint_state(moco, optimizer);
  for (const auto& [name, tensor] : known) check_tensor(state, name, tensor);
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
  moco.queue().restore(from_pytorch(state.at("queue"), Layout::transposed).to(keys.dtype()),
                       static_cast<int64_t>(pointer.item()));
  if (!optimizer) return;
  for (const Sgd::Slot& slot : optimizer->slots()) {
    const Tensor& buffer = state.at(momentum_name(slot.parameter.name));
    slot.momentum_buffer.copy_from(
        from_pytorch(buffer, slot.parameter.layout).to(slot.momentum_buffer.dtype()));
  }
}

CheckpointCopy copy_for_checkpoint(const PretrainConfig& config, Progress progress, Moco& moco,
                                   const Sgd& optimizer, const Provenance& provenance) {
  CheckpointCopy copy{copies_of(moco, &optimizer), {}};
  for (const auto& [name, value] : to_strings(config)) copy.metadata["config." + name] = value;
  for_each_field(progress,
                 [&](const char* key, const auto& field) { copy.metadata[key] = to_text(field); });
  for_each_text(provenance,
                [&](const char* key, const std::string& text) { copy.metadata[key] = text; });
  return copy;
}

NamedTensors make_checkpoint(CheckpointCopy copy) {
  return {to_pytorch(std::move(copy.tensors)), std::move(copy.metadata)};
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
  const PretrainConfig config = config_from_strings(strings);
  check_sizes(config, checkpoint.tensors);
  return config;
}

Progress checkpoint_progress(const NamedTensors& checkpoint) {
  Progress progress;
  for_each_field(progress, [&](const char* key, auto& field) {
    const std::string& text = metadata_text(checkpoint, key);
    if (!from_text(text, field) || !(field >= (key == std::string("knn_epoch") ? -1 : 0)))
      throw Error(std::string("checkpoint: ") + key + " has the unusable value '" + text + "'");
  });
  return progress;
}

Provenance checkpoint_provenance(const NamedTensors& checkpoint) {
  Provenance provenance;
  for_each_text(provenance,
                [&](const char* key, std::string& text) { text = metadata_text(checkpoint, key); });
  return provenance;
}

}  // namespace mocograd
