// Observing operations: the one hook on which tracing, dumps, the console and the NaN guard hang.
//
// Forward operations pass through make_result, backward ones through Variable::backward; what
// changes state beside the graph (the optimizer, the moving average, the queue) calls
// observe_update. Where nobody observes, each of them costs the test of one pointer.
#pragma once

#include <source_location>
#include <string>
#include <vector>

#include "autograd/variable.h"

namespace mocograd {

enum class Phase { forward, backward, optimizer, ema, queue };

const char* name_of(Phase phase);  // "forward"

// An operation that has just been done. References and pointers hold during the call alone; tensors
// share the live numbers, so clone what is to be kept.
struct Operation {
  Phase phase = Phase::forward;
  const char* op = "";         // "conv2d"; in the backward phase the operation that goes back
  std::string module;          // "encoder_q.layer1.0.conv1"
  std::source_location where;  // in the operation's own file
  // forward:   the inputs → the result
  // backward:  ∂L/∂result → ∂L/∂inputs, by position; undefined where none was needed
  // "accumulate" (backward): what had arrived, what arrives → their sum
  // otherwise: what is read and not written → what is written, of sgd_step θ and then v
  std::vector<Tensor> inputs, outputs;
  const Node* node = nullptr;  // forward: of the result, null for a constant; backward: going back
  const OperationDetails* details = nullptr;  // forward only
};

class OperationObserver {
 public:
  virtual ~OperationObserver() = default;
  // On the thread that computes, right after each operation. May throw, which ends the computation.
  virtual void operation(const Operation& operation) = 0;
};

// While one exists its observer sees every operation of this thread; the one installed first is
// called first. Operations that an observer itself computes are not observed.
class ObserverScope {
 public:
  explicit ObserverScope(OperationObserver& observer);
  ~ObserverScope();
  ObserverScope(const ObserverScope&) = delete;
  ObserverScope& operator=(const ObserverScope&) = delete;

 private:
  friend void notify(const Operation&);
  void call(const Operation& operation) const;

  OperationObserver& observer_;
  ObserverScope* outer_;
};

bool observed();  // does anybody observe this thread?

// Tells the observers. Requires: observed().
void notify(const Operation& operation);

// For what changes state beside the graph; tells the observers if there are any.
void observe_update(Phase phase, const char* op, const std::string& module,
                    const std::vector<Tensor>& inputs, const std::vector<Tensor>& outputs,
                    std::source_location where = std::source_location::current());

}  // namespace mocograd
