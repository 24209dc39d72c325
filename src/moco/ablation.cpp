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

// Of the epoch that a run ended in.
void add_last_epoch(const std::vector<StepEvent>& steps, std::vector<double>& loss,
                    std::vector<double>& top1, std::vector<double>& images_per_s) {
  if (steps.empty()) return;
  double count = 0, losses = 0, wins = 0, seconds = 0;  // an image's
  for (auto step = steps.rbegin(); step != steps.rend() && step->epoch == steps.back().epoch;
       ++step) {
    ++count;
    losses += step->loss;
    wins += step->top1;
    seconds += 1 / step->images_per_s;
  }
  loss.push_back(losses / count);
  top1.push_back(wins / count);
  images_per_s.push_back(count / seconds);
}

// Not where the run was trained further.
void add_knn(const RunMetrics& metrics, std::vector<double>& knn) {
  if (metrics.knn.empty()) return;
  const KnnEvent& last = metrics.knn.back();
  if (metrics.steps.empty() || metrics.steps.back().epoch <= last.epoch) knn.push_back(last.top1);
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
    add_last_epoch(run->metrics.steps, loss, top1, images_per_s);
    add_knn(run->metrics, knn);
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
