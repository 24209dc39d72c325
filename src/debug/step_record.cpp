#include "debug/step_record.h"

#include <algorithm>
#include <utility>

#include "debug/equal_tensor.h"
#include "io/text.h"

namespace mocograd {
namespace {

bool ends_with_part(const std::string& name, const std::string& end) {
  return name.size() > end.size() && name.ends_with(end) &&
         name[name.size() - end.size() - 1] == '.';
}

// Do the operations of this phase write over their outputs?
bool overwrites(Phase phase) {
  return phase == Phase::optimizer || phase == Phase::ema || phase == Phase::queue;
}

}  // namespace

void StepRecord::begin_step(const std::vector<GivenTensor>& given) {
  OperationNames names = std::move(names_);
  *this = StepRecord();
  names_ = std::move(names);
  names_.begin_step();
  given_ = given;
  for (const GivenTensor& tensor : given) {
    if (!tensor.tensor.defined()) continue;
    const void* memory = tensor.tensor.raw_bytes();
    given_at_[memory] = tensor.name;
    if (tensor.overwritten) overwritten_.insert(memory);
    if (tensor.view) views_.insert(memory);
  }
}

const RecordedOperation& StepRecord::add(const Operation& operation) {
  RecordedOperation recorded{
      .index = static_cast<int64_t>(operations_.size()),
      .phase = operation.phase,
      .op = operation.op,
      .module = operation.module,
      .name = names_.name(operation),
      .source = source_of(operation),
      .inputs = {},
      .outputs = {},
      .parents = {},
      .origins = {},
      .children = {},
      .again = operation.details ? operation.details->again : DifferentiableFunction(),
      .in_graph = operation.phase == Phase::forward && operation.node};
  for (const Tensor& input : operation.inputs) recorded.inputs.push_back(keep(input, false));
  for (const Tensor& output : operation.outputs)
    recorded.outputs.push_back(keep(output, overwrites(operation.phase)));
  link(operation, recorded);
  operations_.push_back(std::move(recorded));
  return operations_.back();
}

Tensor StepRecord::keep(const Tensor& tensor, bool just_overwritten) {
  if (!tensor.defined()) return tensor;
  Tensor kept = tensor;
  if (just_overwritten) {
    kept = copies_[tensor.raw_bytes()] = tensor.clone();
  } else if (overwritten_.contains(tensor.raw_bytes())) {
    Tensor& copy = copies_[tensor.raw_bytes()];
    if (!copy.defined() || copy.shape() != tensor.shape()) copy = tensor.clone();
    kept = copy;
  }
  if (counted_.insert(kept.raw_bytes()).second) bytes_ += static_cast<int64_t>(kept.bytes());
  return kept;
}

// What an input is that no operation of the step wrote.
std::string StepRecord::origin_of(const Operation& operation, const Tensor& input) const {
  const auto given = given_at_.find(input.raw_bytes());
  if (given != given_at_.end()) return given->second;
  const bool first = operations_.empty() || operations_.back().phase != Phase::backward;
  if (operation.phase == Phase::backward && first) return "1, the gradient of the loss";
  const auto copied = find_equal(given_, input);
  return copied == given_.end() ? "" : copied->name;
}

// By memory: while all tensors are kept, none is used twice.
void StepRecord::link(const Operation& operation, RecordedOperation& recorded) {
  for (const Tensor& input : operation.inputs) {
    const auto writer = writer_.find(input.raw_bytes());
    recorded.parents.push_back(writer == writer_.end() ? -1 : writer->second);
    const bool written = writer != writer_.end();
    recorded.origins.push_back(written ? "" : origin_of(operation, input));
    if (!written) continue;
    std::vector<int64_t>& children = operations_[static_cast<size_t>(writer->second)].children;
    if (children.empty() || children.back() != recorded.index) children.push_back(recorded.index);
  }
  for (const Tensor& output : operation.outputs) {
    if (output.defined()) writer_[output.raw_bytes()] = recorded.index;
  }
  if (recorded.op == "gather_rows" && views_.contains(operation.inputs[0].raw_bytes()))
    views_.insert(operation.outputs[0].raw_bytes());
  if (recorded.in_graph) forward_[operation.node] = recorded.index;
  const auto forward = forward_.find(operation.node);
  if (operation.phase != Phase::backward || forward == forward_.end()) return;
  recorded.forward = forward->second;
  if (recorded.op != "accumulate")
    operations_[static_cast<size_t>(recorded.forward)].backward = recorded.index;
}

const RecordedOperation& StepRecord::find(const std::string& name) const {
  if (name.starts_with("%")) {
    int64_t index = -1;
    if (!from_text(name.substr(1), index) || index < 0)
      throw Error(name + ": the index of an operation is % and an integer >= 0");
    if (index >= static_cast<int64_t>(operations_.size()))
      throw Error(name + ": this step has had " + std::to_string(operations_.size()) +
                  " operations so far");
    return operations_[static_cast<size_t>(index)];
  }
  std::set<std::string> ends;
  for (const RecordedOperation& operation : operations_) {
    if (operation.name == name) return operation;  // the forward one, which came first
    if (ends_with_part(operation.name, name)) ends.insert(operation.name);
  }
  if (ends.empty()) throw Error(name + ": no operation of this step has had that name so far");
  if (ends.size() > 1)
    throw Error(name + ": " + std::to_string(ends.size()) + " operations end so, as " +
                *ends.begin() + " and " + *ends.rbegin());
  return find(*ends.begin());
}

bool StepRecord::is_view(const Tensor& tensor) const {
  return views_.contains(tensor.raw_bytes());
}

const Tensor& StepRecord::gradient(const RecordedOperation& operation) const {
  if (operation.phase == Phase::backward) return operation.inputs[0];
  if (operation.backward >= 0)
    return operations_[static_cast<size_t>(operation.backward)].inputs[0];
  throw Error(operation.name + (operation.in_graph
                                    ? ": backward has not come there so far"
                                    : ": it is not in the graph, no gradient flows"));
}

}  // namespace mocograd
