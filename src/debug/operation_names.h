// Stable names for the operations of a step, the same in every run and in the PyTorch script that
// writes what `moco debug diff` compares with (tools/dump_operations.py).
//
//   forward, backward   MODULE.OP         "encoder_q.layer1.0.conv1.conv2d"; "OP" outside a module
//   optimizer, ema      PARAMETER.OP      "encoder_q.conv1.weight.sgd_step"
//   queue               "queue.enqueue"
// From the second of a name in a step on "#2", "#3", … follows. A backward operation has the name of
// the forward operation that it goes back through.
#pragma once

#include <map>
#include <string>

#include "autograd/observer.h"
#include "nn/module.h"

namespace mocograd {

std::string source_of(const Operation& operation);  // "src/autograd/ops/conv2d.cpp:32"

class OperationNames {
 public:
  // Gradients that arrive at parameters are named after them: "encoder_q.conv1.weight.accumulate".
  void add_parameters(const Module& module);

  void begin_step();  // counting begins anew
  // Requires: called once for each operation, in order.
  std::string name(const Operation& operation);
  // Of the node that a forward operation of this step made, or of a parameter; else its op.
  std::string name_of_node(const Node* node) const;

 private:
  std::string counted(const std::string& name);

  std::map<const Node*, std::string> parameters_, nodes_;
  std::map<std::string, int> counts_;
};

}  // namespace mocograd
