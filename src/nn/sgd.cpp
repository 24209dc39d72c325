#include "nn/sgd.h"

#include "autograd/observer.h"
#include "tensor/backend.h"

namespace mocograd {

Sgd::Sgd(const Module& module, const SgdConfig& config) : config_(config), module_(module.name()) {
  for (const NamedParameter& parameter : module.named_parameters())
    slots_.push_back({parameter, Tensor::zeros_like(parameter.variable->data())});
}

void Sgd::zero_grad() {
  for (const Slot& slot : slots_) slot.parameter.variable->zero_grad();
}

void Sgd::step(double learning_rate) {
  std::vector<SgdUpdate> updates;
  for (const Slot& slot : slots_) {
    const Variable& theta = *slot.parameter.variable;
    MOCO_CHECK(theta.grad().defined(), "sgd: ", slot.parameter.name,
               " has no gradient; run backward before the step");
    updates.push_back({theta.grad(), slot.momentum_buffer, theta.data()});
  }
  if (updates.empty()) return;
  updates[0].theta.backend().sgd_step(updates, learning_rate, config_.momentum,
                                      config_.weight_decay);
  for (size_t i = 0; i < slots_.size(); ++i)
    observe_update(Phase::optimizer, "sgd_step", module_ + "." + slots_[i].parameter.name,
                   {updates[i].g}, {updates[i].v, updates[i].theta});
}

}  // namespace mocograd
