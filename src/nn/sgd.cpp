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
  update(learning_rate, std::vector<Tensor>(slots_.size()), 1);
}

void Sgd::step(double learning_rate, const std::vector<Tensor>& averages, double m) {
  MOCO_CHECK(!observed(), "sgd: an observer is not told of averages");
  MOCO_CHECK(averages.size() == slots_.size(), "sgd: ", averages.size(), " averages for ",
             slots_.size(), " parameters");
  for (size_t i = 0; i < slots_.size(); ++i) {
    const Tensor &theta = slots_[i].parameter.variable->data(), &average = averages[i];
    MOCO_CHECK(average.defined() && average.shape() == theta.shape() &&
                   average.dtype() == theta.dtype() && average.device() == theta.device(),
               "sgd: the average of ", slots_[i].parameter.name, " is ", average.describe(),
               ", the parameter ", theta.describe());
  }
  update(learning_rate, averages, m);
}

void Sgd::update(double learning_rate, const std::vector<Tensor>& averages, double m) {
  std::vector<SgdUpdate> updates;
  for (size_t i = 0; i < slots_.size(); ++i) {
    const Variable& theta = *slots_[i].parameter.variable;
    MOCO_CHECK(theta.grad().defined(), "sgd: ", slots_[i].parameter.name,
               " has no gradient; run backward before the step");
    updates.push_back({theta.grad(), slots_[i].momentum_buffer, theta.data(), averages[i]});
  }
  if (updates.empty()) return;
  updates[0].theta.backend().sgd_step(updates, learning_rate, config_.momentum,
                                      config_.weight_decay, m);
  for (size_t i = 0; i < slots_.size(); ++i)
    observe_update(Phase::optimizer, "sgd_step", module_ + "." + slots_[i].parameter.name,
                   {updates[i].g}, {updates[i].theta, updates[i].v});
}

}  // namespace mocograd
