#include "nn/schedule.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numbers>

#include "tensor/error.h"

namespace mocograd {
namespace {

int64_t parse_milestone(const std::string& schedule, const std::string& text) {
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || rest != end || value < 1)
    throw UsageError("--schedule " + schedule + ": '" + text + "' is not an epoch (1, 2, …)");
  return value;
}

}  // namespace

Schedule Schedule::parse(const std::string& text) {
  Schedule schedule;
  if (text == "cosine") return schedule;
  const std::string prefix = "step:";
  if (text.rfind(prefix, 0) != 0)
    throw UsageError("--schedule " + text + ": must be cosine or step:E1,E2,…");
  for (size_t begin = prefix.size(); begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const int64_t milestone = parse_milestone(text, text.substr(begin, end - begin));
    if (!schedule.milestones.empty() && milestone <= schedule.milestones.back())
      throw UsageError("--schedule " + text + ": the epochs must rise");
    schedule.milestones.push_back(milestone);
    begin = end + 1;
  }
  return schedule;
}

double Schedule::learning_rate(double base, int64_t epoch, int64_t epochs) const {
  if (milestones.empty()) {
    const double progress = static_cast<double>(epoch) / static_cast<double>(epochs);
    return base * 0.5 * (1 + std::cos(std::numbers::pi * progress));
  }
  double rate = base;
  for (int64_t milestone : milestones) {
    if (epoch - 1 >= milestone) rate *= 0.1;
  }
  return rate;
}

}  // namespace mocograd
