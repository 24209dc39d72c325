#include "nn/module.h"

namespace mocograd {

Variable Module::operator()(const Variable& x) {
  const ModuleScope scope(name_);
  return forward(x);
}

std::vector<NamedParameter> Module::named_parameters() const {
  std::vector<NamedParameter> all = parameters_;
  for (const Module* child : children_) {
    for (NamedParameter parameter : child->named_parameters()) {
      parameter.name = child->name_ + "." + parameter.name;
      all.push_back(parameter);
    }
  }
  return all;
}

std::vector<NamedBuffer> Module::named_buffers() const {
  std::vector<NamedBuffer> all = buffers_;
  for (const Module* child : children_) {
    for (NamedBuffer buffer : child->named_buffers()) {
      buffer.name = child->name_ + "." + buffer.name;
      all.push_back(buffer);
    }
  }
  return all;
}

void Module::zero_grad() {
  for (const NamedParameter& parameter : named_parameters()) parameter.variable->zero_grad();
}

void Module::train(bool training) {
  training_ = training;
  for (Module* child : children_) child->train(training);
}

void Module::register_parameter(const std::string& name, Variable& parameter, Layout layout) {
  parameters_.push_back({name, &parameter, layout});
}

void Module::register_buffer(const std::string& name, Tensor& buffer) {
  buffers_.push_back({name, &buffer});
}

void Module::register_module(const std::string& name, Module& child) {
  child.name_ = name;
  children_.push_back(&child);
}

}  // namespace mocograd
