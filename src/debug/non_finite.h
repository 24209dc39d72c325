// Where did the first number that is not finite come from?
//
// An operation spreads what it is given, so the last victim (a NaN loss) tells nothing. The producer
// is the first operation of a step that writes a NaN or an infinity though all it read is finite; or
// what the step began with, where that is not finite already.
#pragma once

#include <optional>
#include <string>

#include "debug/trace.h"
#include "moco/moco.h"

namespace mocograd {

enum class NonFiniteSource { operation, parameter, key_parameter, queue, view };

struct NonFiniteOrigin {
  NonFiniteSource source = NonFiniteSource::operation;
  std::string name;  // "encoder_q.layer1.0.conv1.conv2d"; "queue", "im_q", of a parameter its name
  std::string message;  // who wrote what, one line
  std::string context;  // of an operation: its place, and statistics of all that it read
};

// What a step reads: the parameters of both encoders, the queue, the views.
std::optional<NonFiniteOrigin> non_finite_state(Moco& moco, const ViewPair& views);

// Finds the producer among the operations of a step. An operation writes its outputs and what it
// saves for its backward beside them (the variance of a batch norm). Where every operation that
// wrote something not finite had read such, the first of them is told.
class NonFiniteFinder : public TraceSink {
 public:
  void record(const TraceRecord& record) override;
  const std::optional<NonFiniteOrigin>& origin() const { return origin_; }

 private:
  std::optional<NonFiniteOrigin> origin_;
  bool certain_ = false;  // had the origin read finite numbers only?
};

}  // namespace mocograd
