#include "cli/run_grid.h"

#include <algorithm>
#include <cctype>
#include <climits>
#include <cstring>
#include <map>

#include "cli/recipe.h"
#include "tensor/error.h"

namespace mocograd {
namespace {

// The flags of the call that are runs' flags.
std::vector<RecipeKey> given_in(const CLI::App& command) {
  CLI::App runs;
  runs.set_help_flag();
  PretrainFlags unused;
  add_run_flags(runs, unused);
  std::vector<RecipeKey> given;
  for (const CLI::Option* option : runs.get_options()) {
    const std::string& name = option->get_lnames().front();
    const CLI::Option* here = command.get_option("--" + name);
    if (here->count() > 0) given.push_back({name, here->results()});
  }
  return given;
}

std::vector<RecipeKey> keys_of(const std::string& recipe, const CLI::App& command) {
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

std::string safe(const std::string& text) {
  std::string name;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = byte >= 0x80 || std::isalnum(byte) || (c && std::strchr("._-+: ", c));
    char code[4];
    std::snprintf(code, sizeof code, "%%%02X", byte);
    name += plain ? std::string(1, c) : code;
  }
  return name;
}

// With the validators of moco pretrain.
PretrainFlags parse(const FlagValues& values, const std::string& recipe) {
  PretrainFlags flags;
  CLI::App command;
  add_run_flags(command, flags);
  std::vector<std::string> arguments;
  for (const auto& [flag, value] : values) {
    if (!command.get_option_no_throw("--" + flag))
      throw UsageError(recipe + ": '" + flag + "' is nothing that the runs of a grid can set");
    arguments.push_back("--" + flag + "=" + value);
  }
  std::ranges::reverse(arguments);  // as CLI11 takes them
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
  return flags;
}

GridRun make_run(const FlagValues& values, const FlagValues& varied, const std::string& recipe,
                 const std::string& out) {
  GridRun run{.name = "", .varied = varied, .flags = parse(values, recipe)};
  for (const auto& [flag, value] : varied)
    run.name += (run.name.empty() ? "" : ",") + flag + "=" + safe(value);
  if (run.name.empty()) run.name = "run";
  if (run.name.size() > NAME_MAX)
    throw UsageError(recipe + ": a folder cannot have a name as long as " + run.name);
  run.flags.options.out = out + "/" + run.name;
  return run;
}

// All that makes a run what it is; the same for 0.1 and 1e-1.
std::string text_of(const PretrainFlags& flags) {
  const ComputeFlags& compute = flags.compute;
  return to_recipe(flags.config, {{"threads", std::to_string(compute.threads)},
                                  {"device", compute.device},
                                  {"precision", compute.precision},
                                  {"conv", compute.conv}});
}

}  // namespace

std::vector<GridRun> runs_of_grid(const std::string& recipe, const std::string& out,
                                  const CLI::App& command) {
  constexpr size_t kMostRuns = 1000;
  const std::vector<RecipeKey> keys = keys_of(recipe, command);
  size_t count = 1;
  for (const RecipeKey& key : keys) {
    count *= key.values.size();
    if (count > kMostRuns)
      throw UsageError(detail::concatenate(recipe, ": more than ", kMostRuns, " runs"));
  }
  std::vector<GridRun> runs;
  std::map<std::string, std::string> name_of_text;
  for (size_t i = 0; i < count; ++i) {
    FlagValues values, varied;
    size_t rest = i, block = count;
    for (const RecipeKey& key : keys) {
      block /= key.values.size();
      values.emplace_back(key.name, key.values[rest / block]);
      rest %= block;
      if (key.values.size() > 1) varied.push_back(values.back());
    }
    runs.push_back(make_run(values, varied, recipe, out));
    const auto [same, is_new] =
        name_of_text.try_emplace(text_of(runs.back().flags), runs.back().name);
    if (!is_new)
      throw UsageError(recipe + ": two runs are the same: " + same->second + " and " +
                       runs.back().name);
  }
  return runs;
}

}  // namespace mocograd
