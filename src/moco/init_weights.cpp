#include "moco/init_weights.h"

#include <algorithm>

#include "io/safetensors.h"
#include "nn/state_dict.h"
#include "tensor/statistics.h"

namespace mocograd {
namespace {

const std::string kQueryPrefix = "encoder_q.";

bool starts_with(const std::string& text, const std::string& prefix) {
  return text.rfind(prefix, 0) == 0;
}
bool ends_with(const std::string& text, const std::string& suffix) {
  return text.size() >= suffix.size() &&
         text.compare(text.size() - suffix.size(), suffix.size(), suffix) == 0;
}
bool of_the_head(const std::string& name) {
  return starts_with(name, "fc.");
}

bool is_checkpoint(const StateDict& tensors) {
  return std::any_of(tensors.begin(), tensors.end(),
                     [](const auto& entry) { return starts_with(entry.first, kQueryPrefix); });
}

// The tensors of one encoder, under torchvision's names.
StateDict encoder_tensors(const StateDict& tensors) {
  if (!is_checkpoint(tensors)) return tensors;
  StateDict encoder;
  for (const auto& [name, tensor] : tensors) {
    if (starts_with(name, kQueryPrefix)) encoder[name.substr(kQueryPrefix.size())] = tensor;
  }
  return encoder;
}

bool alike(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && same_kind(a.dtype(), b.dtype());
}

// Does the file hold exactly the head that the network has?
bool same_head(const StateDict& given, const StateDict& network) {
  const auto matches = [](const StateDict& some, const StateDict& others) {
    return std::all_of(some.begin(), some.end(), [&](const auto& entry) {
      const auto found = others.find(entry.first);
      return !of_the_head(entry.first) ||
             (found != others.end() && alike(found->second, entry.second));
    });
  };
  return matches(given, network) && matches(network, given);
}

// Throws where the backbone does not match, or something unknown is there.
void check_backbone(const std::string& path, const StateDict& given, const StateDict& network) {
  for (const auto& [name, tensor] : network) {
    if (of_the_head(name)) continue;
    const auto found = given.find(name);
    if (found == given.end()) {
      if (ends_with(name, ".num_batches_tracked")) continue;
      throw Error(path + ": " + name + " is missing", "",
                  "--init needs torchvision's names or a checkpoint, and the --arch, --stem and "
                  "--width of its weights");
    }
    if (!alike(found->second, tensor))
      throw Error(path + ": " + name + " is " + found->second.describe() + ", the network needs " +
                  tensor.describe());
  }
  for (const auto& [name, tensor] : given) {
    if (!all_finite(tensor)) throw Error(path + ": " + name + " is not finite");
    if (!of_the_head(name) && !network.contains(name))
      throw Error(path + ": " + name + " is not part of this network");
  }
}

}  // namespace

std::string init_encoders(const std::string& path, Moco& moco) {
  const StateDict tensors = read_safetensors(path).tensors;
  const StateDict given = encoder_tensors(tensors);
  StateDict state;  // begins as the network is, so that what is not given stays
  save_state(moco.encoder_q(), "", state);
  check_backbone(path, given, state);
  const bool head = same_head(given, state);
  for (const auto& [name, tensor] : given) {
    if (head || !of_the_head(name)) state[name] = tensor;
  }
  load_state(moco.encoder_q(), "", state);
  load_state(moco.encoder_k(), "", state);
  return path +
         (is_checkpoint(tensors) ? ": both encoders begin with its encoder_q"
                                 : ": both encoders begin with its weights") +
         (head ? "" : "; the head (fc) is not the network's and stays at its initial value");
}

}  // namespace mocograd
