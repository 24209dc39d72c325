// Recipes: flags' values from a file, the part of TOML that flags need.
//
//   # a comment
//   [pretrain]              the command, once; moco step takes those of its flags too, after [step]
//   arch = "resnet20"       "…" with TOML's escapes, or '…' as it is
//   lr = 0.03               numbers; true, false
//   seed = [0, 1, 2]        a list, in one line, of values to compare: for moco ablate alone
//
// A recipe without a section for the command that is called is an error. CLI11 sets the values as if
// they had been given as flags, with the same validators; flags win. Its own reader of such files cuts a
// string at '#', skips short lines and is silent about where a mistake is.
#pragma once

#include <CLI/CLI.hpp>

namespace mocograd {

// Adds --recipe to the program, whose commands are there already.
void add_recipe_flag(CLI::App& app);

// A flag's name, "lr", and its values: one, or those of a list, no two with the same text.
struct RecipeKey {
  std::string name;
  std::vector<std::string> values;
};
// What the file's [pretrain] says, in its order. The values are not validated. Throws Error naming the
// file where it cannot be read, UsageError with the line where that is wrong.
std::vector<RecipeKey> read_grid(const std::string& path, const CLI::App& app);

}  // namespace mocograd
