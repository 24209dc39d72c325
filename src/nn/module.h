// Module: a function with parameters, and the tree of named parts that it is made of.
//
// A part registers its parameters, buffers and children under torchvision's names; the full name is
// the path, "layer1.0.conv1.weight". Calling a module names it in the errors of what runs within.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "autograd/variable.h"

namespace mocograd {

// How a tensor is laid out inside the engine; outside (checkpoints, dumps) it has PyTorch's order.
enum class Layout {
  plain,        // the same inside and outside
  conv_weight,  // inside [KH, KW, C, OC], outside [OC, C, KH, KW]
  transposed,   // inside [A, B], outside [B, A]
};

struct NamedParameter {
  std::string name;
  Variable* variable;  // lives in the module
  Layout layout;
};

// State that is saved but not trained: running statistics, counters.
struct NamedBuffer {
  std::string name;
  Tensor* tensor;  // lives in the module
};

class Module {
 public:
  virtual ~Module() = default;
  Module(const Module&) = delete;  // children are registered by address
  Module& operator=(const Module&) = delete;

  Variable operator()(const Variable& x);  // forward, within a ModuleScope of this module's name

  // In the order of registration, names relative to this module.
  std::vector<NamedParameter> named_parameters() const;
  std::vector<NamedBuffer> named_buffers() const;
  void zero_grad();

  // Training or evaluation, for this module and all within it (batch norm is what cares).
  void train(bool training = true);
  void eval() { train(false); }
  bool training() const { return training_; }

  const std::string& name() const { return name_; }

 protected:
  explicit Module(std::string name = "") : name_(std::move(name)) {}
  virtual Variable forward(const Variable& x) = 0;

  void register_parameter(const std::string& name, Variable& parameter,
                          Layout layout = Layout::plain);
  void register_buffer(const std::string& name, Tensor& buffer);
  void register_module(const std::string& name, Module& child);

 private:
  std::string name_;
  bool training_ = true;
  std::vector<NamedParameter> parameters_;  // this module's own
  std::vector<NamedBuffer> buffers_;
  std::vector<Module*> children_;
};

// While it exists, the module is in evaluation mode.
class EvaluationMode {
 public:
  explicit EvaluationMode(Module& module) : module_(module), before_(module.training()) {
    module_.eval();
  }
  ~EvaluationMode() { module_.train(before_); }
  EvaluationMode(const EvaluationMode&) = delete;
  EvaluationMode& operator=(const EvaluationMode&) = delete;

 private:
  Module& module_;
  const bool before_;
};

}  // namespace mocograd
