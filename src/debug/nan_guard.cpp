#include "debug/nan_guard.h"

#include "debug/non_finite.h"
#include "debug/tensor_text.h"

namespace mocograd {
namespace {

// Who wrote the part of the state that is not finite.
std::string writer_of(const NonFiniteStep& step, const NonFiniteOrigin& origin,
                      std::optional<double> previous_learning_rate) {
  switch (origin.source) {
    case NonFiniteSource::operation:
      return origin.context;
    case NonFiniteSource::view:
      return "it is what the data set and its augmentation gave";
    case NonFiniteSource::queue:
      return "every step enqueues finite keys only: it was loaded so, or memory was damaged";
    case NonFiniteSource::key_parameter:
      return "the moving average of finite numbers is finite: it was loaded so, or memory was "
             "damaged";
    case NonFiniteSource::parameter:
      break;
  }
  if (!previous_learning_rate) return "it was loaded so";
  std::string text = detail::concatenate("written by the optimizer of step ", step.progress.step,
                                         ", learning rate ", *previous_learning_rate);
  for (const Sgd::Slot& slot : step.optimizer.slots()) {
    if (step.moco.encoder_q().name() + "." + slot.parameter.name == origin.name)
      text += "; its momentum buffer is " + statistics_text(slot.momentum_buffer);
  }
  return text;
}

std::string advice_for(NonFiniteSource source) {
  const bool diverged =
      source == NonFiniteSource::operation || source == NonFiniteSource::parameter;
  return std::string(diverged ? "a smaller --lr may help; " : "") +
         "the last checkpoint is unharmed; ";
}

// What to say after the advice: how the step is replayed, or why it cannot be.
std::string save(const NonFiniteStep& step, const Rerun& rerun, const std::string& compute_flags) {
  try {
    save_replay(step.replay, step, rerun);
    return "moco debug replay " + step.replay + compute_flags + " computes this step again";
  } catch (const Error& error) {
    return std::string("no replay: ") + error.what();
  }
}

}  // namespace

NonFiniteError explain(const NonFiniteStep& step, std::optional<double> previous_learning_rate,
                       const std::string& compute_flags) {
  const int64_t number = step.progress.step + 1;
  Rerun again = rerun(step.moco, step.views, /*fused=*/false, number);
  if (!again.origin) again = rerun(step.moco, step.views, /*fused=*/true, number);
  const std::string saved = save(step, again, compute_flags);
  const std::string prefix = detail::concatenate("step ", number, ": ");
  if (!again.origin) {
    const bool same_kernels = step.views.im_q.device() == Device::cpu;
    return NonFiniteError(
        prefix + step.error.what() + "; computed again it is finite",
        same_kernels ? "a step is a function of its state: memory or processor may be at fault"
                     : "the loss was done by its operations one by one then: info_nce, memory or "
                       "processor may be at fault",
        "the last checkpoint is unharmed; " + saved);
  }
  return NonFiniteError(prefix + again.origin->message,
                        writer_of(step, *again.origin, previous_learning_rate),
                        advice_for(again.origin->source) + saved);
}

}  // namespace mocograd
