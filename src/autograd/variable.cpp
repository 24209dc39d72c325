#include "autograd/variable.h"

#include <unordered_set>
#include <utility>

#include "autograd/observer.h"
#include "tensor/backend.h"

namespace mocograd {
namespace {

thread_local bool recording = true;

// Every node that `root` depends on, each once, inputs before the nodes that use them.
std::vector<Node*> topological_order(Node* root) {
  struct Visit {
    Node* node;
    size_t next_input = 0;
  };
  std::vector<Node*> order;
  std::unordered_set<Node*> seen = {root};
  std::vector<Visit> stack = {{root}};
  while (!stack.empty()) {
    Visit& visit = stack.back();
    if (visit.next_input == visit.node->inputs.size()) {
      order.push_back(visit.node);
      stack.pop_back();
      continue;
    }
    Node* input = visit.node->inputs[visit.next_input++].get();
    if (input && seen.insert(input).second) stack.push_back({input});
  }
  return order;
}

}  // namespace

bool InputGradients::needed(int input) const {
  return node_.inputs.at(input) != nullptr;
}

void InputGradients::add(int input, const Tensor& dx) {
  if (!needed(input)) return;
  if (seen_) (*seen_)[input] = dx;
  Node& target = *node_.inputs[input];
  MOCO_CHECK(dx.shape() == target.shape && dx.dtype() == target.dtype, "backward of ", node_.op,
             ": gradient ", dx.describe(), " for input ", input, ", ", name_of(target.dtype), " ",
             target.shape.to_string());
  if (!target.grad.defined()) {
    target.grad = dx;
    return;
  }
  Tensor more = dx;
  if (target.adds_parts && !observed()) {
    std::swap(more, target.more_grad);
    if (!more.defined()) return;
  }
  if (target.inputs.empty()) dx.backend().join();  // one of them may be made beside
  // Not in place: two inputs may have been given the same tensor.
  Tensor sum = Tensor::empty_like(dx);
  dx.backend().add(target.grad, more, sum);
  if (observed()) [[unlikely]]
    notify({.phase = Phase::backward,
            .op = "accumulate",
            .module = target.module,
            .where = target.where,
            .inputs = {target.grad, dx},
            .outputs = {sum},
            .node = &target});
  target.grad = sum;
}

void InputGradients::add_beside(int input, const Tensor& dx, const std::function<void()>& make) {
  if (!needed(input)) return;
  if (node_.inputs[input]->inputs.empty()) {
    dx.backend().beside(make);
  } else {
    make();
  }
  add(input, dx);
}

Node::~Node() {
  std::vector<std::shared_ptr<Node>> doomed = std::move(inputs);
  while (!doomed.empty()) {
    const std::shared_ptr<Node> node = std::move(doomed.back());
    doomed.pop_back();
    if (node.use_count() != 1) continue;
    for (std::shared_ptr<Node>& input : node->inputs) doomed.push_back(std::move(input));
    node->inputs.clear();
  }
}

Variable::Variable(Tensor data, bool requires_grad) : data_(std::move(data)) {
  if (!requires_grad) return;
  MOCO_CHECK(data_.defined() && (data_.dtype() == DType::f32 || data_.dtype() == DType::f64),
             "variable: only f32 and f64 tensors have gradients, got ", data_.describe());
  node_ = std::make_shared<Node>();
  node_->shape = data_.shape();
  node_->dtype = data_.dtype();
}

void Variable::zero_grad() {
  if (node_) node_->grad = Tensor();
}

void Variable::backward() const {
  MOCO_CHECK(defined() && data_.numel() == 1, "backward: needs a scalar, got ", data_.describe(),
             "; pass the gradient of the loss with respect to it instead");
  backward(Tensor::full(shape(), 1, data_.options()));
}

void Variable::backward(const Tensor& dy) const {
  MOCO_CHECK(node_, "backward: nothing this was made from requires a gradient");
  MOCO_CHECK(dy.defined() && dy.shape() == shape() && dy.dtype() == data_.dtype(),
             "backward: gradient ", dy.describe(), " for a result ", data_.describe());
  const std::vector<Node*> order = topological_order(node_.get());
  for (Node* node : order) {
    MOCO_CHECK(node->inputs.empty() || node->backward, "backward: the graph behind this ", node->op,
               " was already used by a backward; run the forward again");
    if (node->backward) node->grad = node->more_grad = Tensor();  // of a backward that threw
  }

  if (node_->grad.defined()) {  // this is a leaf
    const Tensor sum = Tensor::empty_like(dy);
    dy.backend().add(node_->grad, dy, sum);
    node_->grad = sum;
  } else {
    node_->grad = dy;
  }
  const NoGrad no_grad;
  for (auto it = order.rbegin(); it != order.rend(); ++it) {
    Node& node = **it;
    if (!node.backward) continue;  // a leaf keeps its gradient
    const BackwardFunction function = std::move(node.backward);
    node.backward = nullptr;
    const Tensor arrived = std::move(node.grad);
    node.grad = Tensor();
    if (!arrived.defined()) continue;
    const ModuleScope scope(node.module);
    InputGradients gradients(node);
    gradients.more_dy_ = std::exchange(node.more_grad, Tensor());
    if (!observed()) [[likely]] {
      function(arrived, gradients);
      MOCO_CHECK(!gradients.more_dy_.defined(), "backward of ", node.op,
                 ": half of its gradient was not taken");
      continue;
    }
    std::vector<Tensor> seen(node.inputs.size());
    gradients.seen_ = &seen;
    function(arrived, gradients);
    notify({.phase = Phase::backward,
            .op = node.op,
            .module = node.module,
            .where = node.where,
            .inputs = {arrived},
            .outputs = seen,
            .node = &node});
  }
  data_.backend().join();
}

Variable make_result(const char* op, const Tensor& y, const std::vector<Variable>& inputs,
                     const OperationDetails& details, BackwardFunction backward,
                     std::source_location where) {
  Variable result(y);
  bool needed = false;
  for (const Variable& input : inputs) needed |= input.requires_grad();
  if (needed && recording) {
    result.node_ = std::make_shared<Node>();
    result.node_->op = op;
    result.node_->module = ModuleScope::path();
    result.node_->where = where;
    result.node_->shape = y.shape();
    result.node_->dtype = y.dtype();
    for (const Variable& input : inputs) result.node_->inputs.push_back(input.node());
    result.node_->backward = std::move(backward);
  }
  if (observed()) [[unlikely]] {
    Operation operation{.phase = Phase::forward,
                        .op = op,
                        .module = ModuleScope::path(),
                        .where = where,
                        .inputs = {},
                        .outputs = {y},
                        .node = result.node_.get(),
                        .details = &details};
    for (const Variable& input : inputs) operation.inputs.push_back(input.data());
    notify(operation);
  }
  return result;
}

Variable make_result(const char* op, const Tensor& y, const std::vector<Variable>& inputs,
                     BackwardFunction backward, std::source_location where) {
  return make_result(op, y, inputs, OperationDetails(), std::move(backward), where);
}

NoGrad::NoGrad() : before_(recording) {
  recording = false;
}
NoGrad::~NoGrad() {
  recording = before_;
}

EnableGrad::EnableGrad() : before_(recording) {
  recording = true;
}
EnableGrad::~EnableGrad() {
  recording = before_;
}

}  // namespace mocograd
