// The runs of moco ablate: every combination of the values that a recipe lists.
#pragma once

#include "cli/pretrain.h"

namespace mocograd {

struct GridRun {
  std::string name;     // "momentum=0.99,seed=1", a folder's; what a folder's cannot have as %2F
  FlagValues varied;    // those with several values in the grid
  PretrainFlags flags;  // options.out is out/name
};

// The values of the recipe's last key change fastest. `command` is moco ablate; what it was given of runs'
// flags wins over the recipe. Throws UsageError, before anything is run, where a value is none that
// moco pretrain takes, or where two runs would be the same.
std::vector<GridRun> runs_of_grid(const std::string& recipe, const std::string& out,
                                  const CLI::App& command);

}  // namespace mocograd
