// What the header of an operation says of it: formula, gradient, shapes, what is saved.
#pragma once

#include <string>

namespace mocograd {

struct OperationFormula {
  std::string header;  // "src/autograd/ops/rows.h"
  std::string text;    // lines without comment signs
};

// Both empty where no header declares it.
OperationFormula operation_formula(const std::string& op);

}  // namespace mocograd
