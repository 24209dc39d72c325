// Breakpoint: a condition on an operation that has just been done, at which the console stops.
#pragma once

#include <string>
#include <vector>

#include "debug/step_record.h"

namespace mocograd {

class Breakpoint {
 public:
  //   op NAME        that operation, forward or back        module PREFIX   in it or in its parts
  //   phase NAME     any of that phase                      nan             wrote a NaN or infinity
  //   above X        wrote a number greater than X          below X         … less than X
  // Throws where it can never hold at any of `step`, the operations that are to come.
  Breakpoint(const std::vector<std::string>& words, const std::vector<RecordedOperation>& step);

  bool holds(const RecordedOperation& operation) const;
  const std::string& text() const { return text_; }  // "op conv2d"

 private:
  enum class Kind { op, module, phase, nan, above, below };

  void check_name(const std::vector<RecordedOperation>& step) const;

  Kind kind_;
  std::string name_, text_;
  double bound_ = 0;
};

}  // namespace mocograd
