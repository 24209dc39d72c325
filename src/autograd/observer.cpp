#include "autograd/observer.h"

#include <utility>

namespace mocograd {
namespace {

thread_local ObserverScope* innermost = nullptr;

}  // namespace

const char* name_of(Phase phase) {
  switch (phase) {
    case Phase::forward:
      return "forward";
    case Phase::backward:
      return "backward";
    case Phase::optimizer:
      return "optimizer";
    case Phase::ema:
      return "ema";
    case Phase::queue:
      return "queue";
  }
  return "unknown";
}

ObserverScope::ObserverScope(OperationObserver& observer)
    : observer_(observer), outer_(std::exchange(innermost, this)) {}

ObserverScope::~ObserverScope() {
  innermost = outer_;
}

void ObserverScope::call(const Operation& operation) const {
  if (outer_) outer_->call(operation);
  observer_.operation(operation);
}

bool observed() {
  return innermost != nullptr;
}

void notify(const Operation& operation) {
  // Hidden during the call, so that what an observer computes does not reach it.
  struct Hide {
    ObserverScope* hidden = std::exchange(innermost, nullptr);
    ~Hide() { innermost = hidden; }
  } const hide;
  hide.hidden->call(operation);
}

void observe_update(Phase phase, const char* op, const std::string& module,
                    const std::vector<Tensor>& inputs, const std::vector<Tensor>& outputs,
                    std::source_location where) {
  if (!observed()) [[likely]]
    return;
  notify({.phase = phase,
          .op = op,
          .module = module,
          .where = where,
          .inputs = inputs,
          .outputs = outputs});
}

}  // namespace mocograd
