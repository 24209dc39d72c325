// Invariants of Momentum Contrast, asserted while it trains: what implementers get wrong.
//
//   queue.norm         every key has length 1
//   queue.pointer      advanced by the number of keys, modulo K
//   queue.keys         this step's keys were written from the pointer on, and nothing else
//   ema                θk = m·θk + (1−m)·θq, before the keys are computed, over all parameters
//   theta_k            nothing writes θk after that: not the optimizer either
//   no_gradient        neither θk nor the queue nor the keys get one
//   batch_norm_k       the statistics of f_k change by its own forward alone, once a forward
//   unshuffle          the order of the keys undoes the order of the images
//   logits.positive    column 0 is ⟨q_i, k_i⟩/T
//   logits.negatives   column 1+j is ⟨q_i, queue_j⟩/T, with the queue as it was before the step
//   logits.gradient    every row of ∂L/∂logits sums to 0; the positive's is never above 0, the
//                      others' never below
//   evaluation         changes no weight, no statistic, not the queue, not the encoders' mode
//
// Parameters are looked at in samples: about 64 numbers of each. A violation throws an Error that
// names step, invariant and numbers; a NaN is none, it is for the step itself to refuse. The checks
// cost time (a copy of the queue a step, among others) and change no number.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "autograd/observer.h"
#include "moco/moco.h"

namespace mocograd {

// To be installed by an ObserverScope around the steps, and told of their bounds.
class InvariantChecker : public OperationObserver {
 public:
  void before_step(int64_t step, Moco& moco);
  void operation(const Operation& operation) override;
  void after_step(Moco& moco, const StepResult& result);

  void before_evaluation(Moco& moco);
  void after_evaluation(Moco& moco);

 private:
  using Samples = std::map<std::string, std::vector<double>>;  // of each tensor, by name

  [[noreturn]] void fail(const std::string& invariant, const std::string& what) const;
  void check_equal(const std::string& invariant, const Samples& before, const Samples& now) const;
  double tolerance() const;  // on numbers of the size 1, after sums of some length

  void enter_key_encoder();
  void leave_key_encoder();
  void check_moving_average() const;
  void check_unshuffle(const Tensor& index);
  void check_no_gradient(const Operation& operation) const;
  void check_logit_gradient(const Tensor& dlogits) const;
  void check_logits(const Contrast& contrast, double temperature) const;
  void check_queue(Moco& moco, const StepResult& result) const;

  int64_t step_ = 0;
  Moco* moco_ = nullptr;                          // during a step
  Samples theta_q_, theta_k_;                     // before the step
  Samples theta_k_averaged_;                      // when the keys were computed
  Samples statistics_k_;                          // of f_k's batch norms, when it last ended
  Tensor queue_;                                  // before the step
  int64_t pointer_ = 0;                           // before the step
  bool in_key_encoder_ = false;                   // was the last forward operation f_k's?
  Tensor shuffle_;                                // of the images that f_k is looking at
  std::map<std::string, std::string> evaluated_;  // hashes before an evaluation
};

}  // namespace mocograd
