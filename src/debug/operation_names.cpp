#include "debug/operation_names.h"

namespace mocograd {

std::string source_of(const Operation& operation) {
  return std::string(operation.where.file_name()) + ":" + std::to_string(operation.where.line());
}

void OperationNames::add_parameters(const Module& module) {
  for (const NamedParameter& parameter : module.named_parameters())
    parameters_[parameter.variable->node().get()] = module.name() + "." + parameter.name;
}

void OperationNames::begin_step() {
  nodes_.clear();
  counts_.clear();
}

std::string OperationNames::name(const Operation& operation) {
  const std::string plain =
      operation.module.empty() ? operation.op : operation.module + "." + operation.op;
  if (operation.phase != Phase::backward) {
    const std::string name = counted(plain);
    if (operation.phase == Phase::forward && operation.node) nodes_[operation.node] = name;
    return name;
  }
  const std::string node = name_of_node(operation.node);
  if (std::string(operation.op) == "accumulate") return counted(node + ".accumulate");
  return node;
}

std::string OperationNames::name_of_node(const Node* node) const {
  for (const auto* known : {&nodes_, &parameters_}) {
    const auto found = known->find(node);
    if (found != known->end()) return found->second;
  }
  return node->module.empty() ? node->op : node->module + "." + node->op;
}

std::string OperationNames::counted(const std::string& name) {
  const int count = ++counts_[name];
  return count == 1 ? name : name + "#" + std::to_string(count);
}

}  // namespace mocograd
