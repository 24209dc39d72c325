// Variable: a tensor and its place in the graph of operations that made it. Reverse-mode autograd.
//
//   Variable x(Tensor::full({2, 3}, 1.5), /*requires_grad=*/true);
//   Variable y = sum(relu(x));     // each operation records how to go back
//   y.backward();                  // x.grad() = ∂y/∂x
//
// The graph is made of nodes, one per result that needs a gradient. A node holds no numbers but the
// gradient that has arrived so far, its inputs' nodes, and a closure that captured what its
// backward needs ("saved" in the headers of autograd/ops/). So what a graph keeps alive is what was
// saved. It is shared, not copied: do not change such a tensor before backward has used it.
#pragma once

#include <functional>
#include <memory>
#include <source_location>
#include <string>
#include <utility>
#include <vector>

#include "tensor/tensor.h"

namespace mocograd {

struct Node;

// What a backward closure adds its results to: the gradients of the inputs, by position.
class InputGradients {
 public:
  explicit InputGradients(const Node& node) : node_(node) {}

  bool needed(int input) const;           // false: a constant, its gradient need not be computed
  void add(int input, const Tensor& dx);  // ∂L/∂input += dx; ignored for a constant
  // The same of what make() computes, beside what comes after it where the input is a leaf
  // (Backend::beside): nobody reads a leaf's gradient before backward returns.
  void add_beside(int input, const Tensor& dx, const std::function<void()>& make);
  // The second part of ∂L/∂result, dy being the first, or undefined. A node that adds_parts must take
  // it.
  Tensor take_more_dy() { return std::exchange(more_dy_, Tensor()); }

 private:
  friend class Variable;

  const Node& node_;
  Tensor more_dy_;
  std::vector<Tensor>* seen_ = nullptr;  // where an observer wants them: by position
};

// dy is ∂L/∂(the operation's result). Called once.
using BackwardFunction = std::function<void(const Tensor& dy, InputGradients& dx)>;

struct Node {
  const char* op = "leaf";
  std::string module;                         // "encoder_q.layer1.0.conv1", where it was made
  std::source_location where;                 // in the operation's file
  std::vector<std::shared_ptr<Node>> inputs;  // null for a constant
  BackwardFunction backward;                  // empty for a leaf, and after use
  Shape shape;                                // of the result
  DType dtype = DType::f32;                   // of the result
  Tensor grad;                                // undefined until something arrived
  // Whether backward takes ∂L/∂result in two parts. Then what arrives last waits in more_grad instead
  // of being added to grad, unless somebody observes.
  bool adds_parts = false;
  Tensor more_grad;

  Node() = default;
  ~Node();  // iterative, so that a long chain does not exhaust the stack
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;
};

struct OperationDetails;

class Variable {
 public:
  Variable() = default;  // undefined
  // A leaf: a parameter or an input (requires_grad), or a constant.
  explicit Variable(Tensor data, bool requires_grad = false);

  bool defined() const { return data_.defined(); }
  const Tensor& data() const { return data_; }
  const Shape& shape() const { return data_.shape(); }
  int ndim() const { return data_.ndim(); }
  int64_t dim(int i) const { return data_.dim(i); }

  bool requires_grad() const { return node_ != nullptr; }
  // Undefined if none arrived. To be read only: it may share its numbers with other gradients and
  // with the dy that backward was given.
  Tensor grad() const { return node_ ? node_->grad : Tensor(); }
  void zero_grad();                                            // forgets it
  const std::shared_ptr<Node>& node() const { return node_; }  // null for a constant
  Variable detach() const { return Variable(data_); }          // the same numbers as a constant

  // Adds ∂L/∂leaf to the gradient of every leaf that this variable was made from, given ∂L/∂this
  // (1 for the form without an argument, which requires numel() == 1). A node is visited once,
  // after all that use it. What the graph saved is freed on the way, so a second backward through
  // any of it is an error.
  void backward() const;
  void backward(const Tensor& dy) const;

 private:
  friend Variable make_result(const char*, const Tensor&, const std::vector<Variable>&,
                              const OperationDetails&, BackwardFunction, std::source_location);

  Tensor data_;
  std::shared_ptr<Node> node_;
};

// A function of variables: deterministic, and the same for any dtype of its inputs.
using DifferentiableFunction = std::function<Variable(const std::vector<Variable>& inputs)>;

// What an operation tells of itself to whoever observes (autograd/observer.h); nothing else uses it.
struct OperationDetails {
  std::vector<Tensor> saved;     // the tensors that its backward captured; some may be undefined
  DifferentiableFunction again;  // the same operation on other inputs: gradcheck of a live node
};

// The result y of an operation on `inputs`. Where no input needs a gradient, or within NoGrad, it
// is a constant and `backward` is dropped with all that it captured.
Variable make_result(const char* op, const Tensor& y, const std::vector<Variable>& inputs,
                     const OperationDetails& details, BackwardFunction backward,
                     std::source_location where = std::source_location::current());
// For an operation that tells nothing of itself.
Variable make_result(const char* op, const Tensor& y, const std::vector<Variable>& inputs,
                     BackwardFunction backward,
                     std::source_location where = std::source_location::current());

// While one exists, operations of this thread record nothing.
class NoGrad {
 public:
  NoGrad();
  ~NoGrad();
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  bool before_;
};

// While one exists, operations of this thread record, even within NoGrad.
class EnableGrad {
 public:
  EnableGrad();
  ~EnableGrad();
  EnableGrad(const EnableGrad&) = delete;
  EnableGrad& operator=(const EnableGrad&) = delete;

 private:
  bool before_;
};

}  // namespace mocograd
