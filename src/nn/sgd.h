// Stochastic gradient descent with momentum and weight decay, in PyTorch's form:
//   v ← μ·v + (g + λ·θ),  θ ← θ − lr·v              v begins at 0; decay on every parameter
#pragma once

#include "nn/module.h"

namespace mocograd {

struct SgdConfig {
  double momentum = 0.9;       // μ
  double weight_decay = 5e-4;  // λ
};

class Sgd {
 public:
  Sgd(const Module& module, const SgdConfig& config);

  void zero_grad();
  // Requires: a backward has given every parameter a gradient.
  void step(double learning_rate);
  // The same, and in the same pass  average ← m·average + (1 − m)·θ  with the new θ. averages: one like
  // each parameter, in their order, or Error; m in [0, 1]. Requires: nobody observes.
  void step(double learning_rate, const std::vector<Tensor>& averages, double m);

  // One for each of the module's parameters, in their order; the same names and layouts.
  struct Slot {
    NamedParameter parameter;
    Tensor momentum_buffer;  // v
  };
  const std::vector<Slot>& slots() const { return slots_; }

 private:
  // averages: all undefined where there are none
  void update(double learning_rate, const std::vector<Tensor>& averages, double m);

  SgdConfig config_;
  std::string module_;  // whose parameters they are
  std::vector<Slot> slots_;
};

}  // namespace mocograd
