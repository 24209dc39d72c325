// The table of an ablation.
#include "moco/ablation.h"

#include <gtest/gtest.h>

namespace mocograd {
namespace {

using End = AblationRun::End;

// Two epochs of two steps, the last of a mean of `loss`.
AblationRun run(const FlagValues& varied, double loss, double knn) {
  AblationRun run{varied, End::finished, {}};
  const auto step = [](int64_t number, int64_t epoch, double value) -> StepEvent {
    return {.step = number,
            .epoch = epoch,
            .loss = value,
            .top1 = 2 * value,
            .images_per_s = 100 * value};
  };
  run.metrics.steps = {step(1, 1, 99), step(2, 1, 99), step(3, 2, 0.5 * loss),
                       step(4, 2, 1.5 * loss)};
  run.metrics.knn = {{0, 99}, {2, knn}};
  return run;
}

TEST(AblationTable, SeedsAreARow) {
  std::vector<AblationRun> runs = {
      run({{"seed", "0"}, {"lr", "0.1"}}, 1, 50), run({{"seed", "0"}, {"lr", "0.2"}}, 2, 60),
      run({{"seed", "1"}, {"lr", "0.1"}}, 4, 53), run({{"seed", "1"}, {"lr", "0.2"}}, 8, 70)};
  EXPECT_EQ(ablation_table(runs),
            "| lr | runs | loss | top1, % | kNN, % | images/s |\n"
            "| --- | --- | ---: | ---: | ---: | ---: |\n"
            "| 0.1 | 2 of 2 | 2.5000 ± 2.1213 | 5.00 ± 4.24 | 51.50 ± 2.12 | 188 ± 159 |\n"
            "| 0.2 | 2 of 2 | 5.0000 ± 4.2426 | 10.00 ± 8.49 | 65.00 ± 7.07 | 375 ± 318 |\n");
}

TEST(AblationTable, WhatIsMissingIsNoNumber) {
  std::vector<AblationRun> runs = {run({{"head", "linear"}}, 1, 50), run({{"head", "mlp"}}, 2, 60),
                                   run({{"head", "a|b"}}, 3, 70), run({{"head", "none"}}, 4, 80)};
  runs[0].metrics.knn.pop_back();  // that before the training is not that after it
  runs[1].end = End::diverged;
  runs[3].end = End::none;
  EXPECT_EQ(ablation_table(runs),
            "| head | runs | loss | top1, % | kNN, % | images/s |\n"
            "| --- | --- | ---: | ---: | ---: | ---: |\n"
            "| linear | 1 of 1 | 1.0000 | 2.00 | – | 75 |\n"
            "| mlp | 0 of 1, diverged | – | – | – | – |\n"
            "| a\\|b | 1 of 1 | 3.0000 | 6.00 | 70.00 | 225 |\n"
            "| none | 0 of 1 | – | – | – | – |\n");
}

TEST(AblationTable, OfOneKindOfRun) {
  EXPECT_EQ(ablation_table({run({{"seed", "0"}}, 1, 50), run({{"seed", "1"}}, 1, 50)}),
            "| runs | loss | top1, % | kNN, % | images/s |\n"
            "| --- | ---: | ---: | ---: | ---: |\n"
            "| 2 of 2 | 1.0000 ± 0.0000 | 2.00 ± 0.00 | 50.00 ± 0.00 | 75 ± 0 |\n");
}

}  // namespace
}  // namespace mocograd
