#include "moco/ablation.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>

namespace mocograd {
namespace {

using End = AblationRun::End;

// The numbers of a row's runs, as many as have one.
std::string text_of(const std::vector<double>& values, int digits) {
  if (values.empty()) return "–";
  const double n = static_cast<double>(values.size());
  double sum = 0, squares = 0;
  for (const double value : values) sum += value;
  for (const double value : values) squares += (value - sum / n) * (value - sum / n);
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, sum / n);
  if (values.size() == 1) return text;
  char deviation[64];
  std::snprintf(deviation, sizeof deviation, " ± %.*f", digits, std::sqrt(squares / (n - 1)));
  return std::string(text) + deviation;
}

// What an epoch and a step both tell, of the run's last.
template <class Field>
void add_last(const RunMetrics& metrics, Field EpochEvent::*of_epoch, Field StepEvent::*of_step,
              std::vector<double>& values) {
  if (!metrics.epochs.empty())
    values.push_back(metrics.epochs.back().*of_epoch);
  else if (!metrics.steps.empty())
    values.push_back(metrics.steps.back().*of_step);
}

// Within a cell of Markdown.
std::string escaped(const std::string& text) {
  std::string cell;
  for (const char c : text) cell += c == '|' ? "\\|" : std::string(1, c);
  return cell;
}

FlagValues without_seed(FlagValues varied) {
  std::erase_if(varied, [](const auto& flag) { return flag.first == "seed"; });
  return varied;
}

std::string row_of(const FlagValues& varied, const std::vector<const AblationRun*>& runs) {
  std::vector<double> loss, top1, knn, images_per_s;
  size_t finished = 0;
  std::string diverged;
  for (const AblationRun* run : runs) {
    if (run->end == End::diverged) diverged = ", diverged";
    if (run->end != End::finished) continue;
    ++finished;
    const RunMetrics& metrics = run->metrics;
    add_last(metrics, &EpochEvent::loss, &StepEvent::loss, loss);
    add_last(metrics, &EpochEvent::top1, &StepEvent::top1, top1);
    add_last(metrics, &EpochEvent::images_per_s, &StepEvent::images_per_s, images_per_s);
    if (!metrics.knn.empty()) knn.push_back(metrics.knn.back().top1);
  }
  std::string row = "|";
  for (const auto& [flag, value] : varied) row += " " + escaped(value) + " |";
  return row + " " + std::to_string(finished) + " of " + std::to_string(runs.size()) + diverged +
         " | " + text_of(loss, 4) + " | " + text_of(top1, 2) + " | " + text_of(knn, 2) + " | " +
         text_of(images_per_s, 0) + " |\n";
}

}  // namespace

std::string ablation_table(const std::vector<AblationRun>& runs) {
  std::string heads = "|", rule = "|", rows;
  if (!runs.empty()) {
    for (const auto& [flag, value] : without_seed(runs.front().varied)) {
      heads += " " + flag + " |";
      rule += " --- |";
    }
  }
  std::vector<FlagValues> seen;
  for (const AblationRun& run : runs) {
    const FlagValues varied = without_seed(run.varied);
    if (std::ranges::find(seen, varied) != seen.end()) continue;
    seen.push_back(varied);
    std::vector<const AblationRun*> row;
    for (const AblationRun& other : runs) {
      if (without_seed(other.varied) == varied) row.push_back(&other);
    }
    rows += row_of(varied, row);
  }
  return heads + " runs | loss | top1, % | kNN, % | images/s |\n" + rule +
         " --- | ---: | ---: | ---: | ---: |\n" + rows;
}

}  // namespace mocograd
