// StepRecord: everything that the operations of a step read and wrote, kept for looking back.
//
// All tensors stay alive until the next step begins. Those that the step overwrites in place
// (parameters, momentum buffers, the queue) are kept as copies, so that one sees the numbers which
// the operation saw, whatever ran after it.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "debug/operation_names.h"

namespace mocograd {

// A tensor that a step begins with.
struct GivenTensor {
  std::string name;  // "encoder_q.conv1.weight", "im_q"
  Tensor tensor;
  bool overwritten = false;  // by the step
  bool view = false;         // normalised images
};

struct RecordedOperation {
  int64_t index = 0;
  Phase phase = Phase::forward;
  std::string op, module, name;         // name as in debug/operation_names.h
  std::string source;                   // "src/autograd/ops/conv2d.cpp:32"
  std::vector<Tensor> inputs, outputs;  // as those of Operation
  std::vector<int64_t> parents;         // by input: the operation that wrote it, or -1
  std::vector<std::string> origins;     // by input without a parent: the given tensor, or its copy
  std::vector<int64_t> children;        // the operations that read what this one wrote, so far
  DifferentiableFunction again;         // empty where the operation told none
  bool in_graph = false;                // forward: a gradient is to flow back through it
  int64_t forward = -1;                 // backward: the operation that it goes back through
  int64_t backward = -1;                // forward: the operation that went back through it
};

class StepRecord {
 public:
  OperationNames& names() { return names_; }

  void begin_step(const std::vector<GivenTensor>& given);
  const RecordedOperation& add(const Operation& operation);

  const std::vector<RecordedOperation>& operations() const { return operations_; }
  const std::vector<GivenTensor>& given() const { return given_; }
  int64_t bytes() const { return bytes_; }  // of memory that all that is kept takes

  // The operation "%17", or the first one of that name, which is the forward one where there is one;
  // an end of the name after a dot will do where it is the end of one name only
  // ("encoder_q.conv1.conv2d" or, if no other encoder has it, "conv1.conv2d"). Throws otherwise.
  const RecordedOperation& find(const std::string& name) const;
  // Is it a view, or rows of one in another order?
  bool is_view(const Tensor& tensor) const;
  // ∂L/∂(what a forward operation wrote). Throws where backward has not come there, or never will.
  const Tensor& gradient(const RecordedOperation& operation) const;

 private:
  Tensor keep(const Tensor& tensor, bool just_overwritten);
  void link(const Operation& operation, RecordedOperation& recorded);
  std::string origin_of(const Operation& operation, const Tensor& input) const;

  OperationNames names_;
  std::vector<GivenTensor> given_;
  std::vector<RecordedOperation> operations_;
  std::map<const Node*, int64_t> forward_;       // the operation that made the node
  std::map<const void*, int64_t> writer_;        // of the memory, the last one
  std::map<const void*, std::string> given_at_;  // the memory of given tensors
  std::map<const void*, Tensor> copies_;         // of what is overwritten, as it is now
  std::set<const void*> overwritten_, views_, counted_;
  int64_t bytes_ = 0;
};

}  // namespace mocograd
