// Learning-rate schedules, changed once an epoch; e counts from 1 to E as in the authors' notebook.
//   cosine:        lr · ½(1 + cos(π·e/E))            so the last epoch has lr 0
//   step:120,160   lr · 0.1^(milestones m with e − 1 >= m)
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mocograd {

struct Schedule {
  std::vector<int64_t> milestones;  // empty: cosine

  // "cosine" or "step:120,160". Throws UsageError that names what is wrong.
  static Schedule parse(const std::string& text);
  // epoch: 1 … epochs
  double learning_rate(double base, int64_t epoch, int64_t epochs) const;
};

}  // namespace mocograd
