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
  for (const Slot& slot : slots_) {
    const Tensor gradient = slot.parameter.variable->grad();
    MOCO_CHECK(gradient.defined(), "sgd: ", slot.parameter.name,
               " has no gradient; run backward before the step");
    gradient.backend().sgd_step(gradient, learning_rate, config_.momentum, config_.weight_decay,
                                slot.momentum_buffer, slot.parameter.variable->data());
    observe_update(Phase::optimizer, "sgd_step", module_ + "." + slot.parameter.name, {gradient},
                   {slot.momentum_buffer, slot.parameter.variable->data()});
  }
}

}  // namespace mocograd
