// moco ablate RECIPE: a grid of runs, one for each combination of the values that the recipe lists, and
// the table that compares them.
#include <algorithm>
#include <cctype>
#include <cstring>
#include <filesystem>
#include <iostream>

#include "cli/commands.h"
#include "cli/pretrain.h"
#include "cli/recipe.h"
#include "cli/stop_signal.h"
#include "io/durable_file.h"
#include "io/printable.h"
#include "moco/ablation.h"
#include "moco/run_directory.h"

namespace mocograd {
namespace {

struct AblateFlags {
  std::string recipe, out;
  bool dry_run = false;
  PretrainFlags run;  // what is given beside the recipe, for every run
};

// One run of the grid.
struct Cell {
  std::string name;  // momentum=0.99,seed=1
  AblationRun result;
  PretrainFlags flags;
};

// The flags of the call that are runs' flags, with their values. They win over the recipe.
std::vector<RecipeKey> given_in(const CLI::App& command) {
  CLI::App runs;
  PretrainFlags unused;
  add_run_flags(runs, unused);
  std::vector<RecipeKey> given;
  for (const CLI::Option* option : runs.get_options()) {
    if (option->get_lnames().empty()) continue;
    const std::string& name = option->get_lnames().front();
    const CLI::Option* here = command.get_option_no_throw("--" + name);
    if (here && here->count() > 0 && name != "help") given.push_back({name, here->results()});
  }
  return given;
}

std::vector<RecipeKey> grid_of(const std::string& recipe, const CLI::App& command) {
  std::vector<RecipeKey> keys = read_grid(recipe, *command.get_parent());
  for (const RecipeKey& flag : given_in(command)) {
    const auto same = std::ranges::find(keys, flag.name, &RecipeKey::name);
    if (same != keys.end())
      same->values = flag.values;
    else
      keys.push_back(flag);
  }
  return keys;
}

// For a folder's name: a path of a data set has other characters.
std::string safe(const std::string& text) {
  std::string name;
  for (const char c : text) {
    const bool plain = std::isalnum(static_cast<unsigned char>(c)) || std::strchr("._-+:", c);
    name += plain ? c : '_';
  }
  return name;
}

// With the validators of moco pretrain.
PretrainFlags parse(const FlagValues& values, const std::string& recipe, const std::string& out) {
  PretrainFlags flags;
  CLI::App command;
  add_run_flags(command, flags);
  std::vector<std::string> arguments;  // from the last to the first
  for (const auto& [flag, value] : values)
    arguments.insert(arguments.begin(), "--" + flag + "=" + value);
  try {
    command.parse(arguments);
  } catch (const CLI::ParseError& error) {
    throw UsageError(recipe + ": " + error.what());
  }
  flags.options.given = given_flags(command, flags.config);
  if (!flags.options.given.contains("data"))
    throw UsageError("--data is required, in " + recipe + " or beside it", "",
                     "shapes is built in");
  check_splits(flags.config);
  flags.options.out = out;
  return flags;
}

// The values of the last key change fastest.
std::vector<Cell> cells_of(const std::vector<RecipeKey>& keys, const AblateFlags& flags) {
  constexpr size_t kMostRuns = 1000;
  size_t count = 1;
  for (const RecipeKey& key : keys) {
    count *= key.values.size();
    if (count > kMostRuns)
      throw UsageError(detail::concatenate(flags.recipe, ": more than ", kMostRuns, " runs"));
  }
  std::vector<Cell> cells;
  for (size_t i = 0; i < count; ++i) {
    Cell cell;
    FlagValues values;
    size_t rest = i, block = count;
    for (const RecipeKey& key : keys) {
      block /= key.values.size();
      const std::string& value = key.values[rest / block];
      rest %= block;
      values.emplace_back(key.name, value);
      if (key.values.size() == 1) continue;
      cell.result.varied.emplace_back(key.name, value);
      cell.name += (cell.name.empty() ? "" : ",") + key.name + "=" + safe(value);
    }
    if (cell.name.empty()) cell.name = "run";
    if (std::ranges::find(cells, cell.name, &Cell::name) != cells.end())
      throw UsageError(flags.recipe + ": two runs would be in " + flags.out + "/" + cell.name);
    cell.flags = parse(values, flags.recipe, flags.out + "/" + cell.name);
    cells.push_back(cell);
  }
  return cells;
}

// From where it was, if it has begun before.
AblationRun::End run(Cell& cell, const std::string& program) {
  std::error_code unknown;
  PretrainOptions& options = cell.flags.options;
  options.resume = std::filesystem::exists(RunDirectory::checkpoint_in(options.out), unknown);
  try {
    if (run_pretraining(cell.flags, program) != 0) return AblationRun::End::stopped;
  } catch (const NonFiniteError& error) {
    std::cout << "diverged: " << printable(error.what()) << std::endl;
    return AblationRun::End::diverged;
  } catch (const UsageError& error) {
    throw UsageError(options.out + ": " + error.what(), error.context(),
                     options.resume ? "another --out begins anew" : error.hint());
  }
  cell.result.metrics = read_metrics(RunDirectory::metrics_in(options.out));
  return AblationRun::End::finished;
}

void write_table(const std::vector<Cell>& cells, const std::string& path) {
  std::vector<AblationRun> results;
  for (const Cell& cell : cells) results.push_back(cell.result);
  const std::string table = ablation_table(results);
  DurableFile file(path);
  file.write(table.data(), table.size());
  file.commit();
  std::cout << '\n' << table << std::flush;
}

// 0, 1 where a run diverged, or 128 + the signal that stopped the runs.
int ablate(const AblateFlags& flags, const CLI::App& command) {
  std::vector<Cell> cells = cells_of(grid_of(flags.recipe, command), flags);
  if (flags.dry_run) {
    for (const Cell& cell : cells) std::cout << printable(cell.name) << '\n';
    return 0;
  }
  int exit_code = 0;
  for (size_t i = 0; i < cells.size() && stop_signal() == 0; ++i) {
    std::cout << "run " << i + 1 << " of " << cells.size() << ": " << printable(cells[i].name)
              << std::endl;
    cells[i].result.end = run(cells[i], command.get_parent()->get_name());
    if (cells[i].result.end == AblationRun::End::diverged) exit_code = 1;
  }
  write_table(cells, flags.out + "/table.md");
  if (stop_signal() == 0) return exit_code;
  std::cout << "stopped; the same call goes on" << std::endl;
  return 128 + stop_signal();
}

}  // namespace

void add_ablate_command(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<AblateFlags>();
  CLI::App* command =
      app.add_subcommand("ablate", "a grid of pretraining runs, and the table that compares them");
  command
      ->add_option("RECIPE", flags->recipe,
                   "TOML under [pretrain]; of a key with a list of values each is tried")
      ->required()
      ->check(not_empty("RECIPE"));
  command
      ->add_option("--out", flags->out,
                   "a folder for the runs' directories and table.md; runs that are there go on")
      ->required()
      ->check(not_empty("--out"));
  command->add_flag("--dry-run", flags->dry_run, "only list the runs")->check(true_or_false());
  add_run_flags(*command, flags->run);
  command->footer(
      "Flags win over the recipe. Of runs that differ in their seed alone the table has the mean.");
  command->callback([flags, command, &exit_code] { exit_code = ablate(*flags, *command); });
}

}  // namespace mocograd
