// moco ablate RECIPE: a grid of runs, one after the other, and the table that compares them.
#include <algorithm>
#include <exception>
#include <filesystem>
#include <iostream>
#include <tuple>

#include "cli/commands.h"
#include "cli/recipe.h"
#include "cli/run_grid.h"
#include "cli/stop_signal.h"
#include "io/directory.h"
#include "io/durable_file.h"
#include "io/printable.h"
#include "moco/ablation.h"
#include "moco/run_directory.h"

namespace mocograd {
namespace {

using End = AblationRun::End;

struct AblateFlags {
  std::string recipe, out;
  bool dry_run = false;
  PretrainFlags run;  // what is given beside the recipe, for every run
};

class Ablation {
 public:
  Ablation(std::vector<GridRun> runs, const std::string& out, const CLI::App& program)
      : runs_(std::move(runs)), table_(out + "/table.md"), program_(program) {
    for (const GridRun& run : runs_) results_.push_back({run.varied, End::none, {}});
  }

  // What can be told before anything is run: devices that are not there, or lack a precision; runs that
  // were computed otherwise.
  void check() const {
    const ComputeFlags* last = nullptr;
    for (const GridRun& run : runs_) {
      if (!last || *last != run.flags.compute) apply(run.flags.compute);
      last = &run.flags.compute;
      check_computation(run.flags);
    }
    make_directory(std::filesystem::path(table_).parent_path().string());
    remove_leftovers(table_);
    check_writable(table_);
  }

  // The exit code. The table is there after each run.
  int run() {
    std::exception_ptr failure;
    for (size_t i = 0; i < runs_.size() && stop_signal() == 0 && !failure; ++i) {
      std::cout << "run " << i + 1 << " of " << runs_.size() << ": " << printable(runs_[i].name)
                << std::endl;
      try {
        run(i);
      } catch (const Error&) {
        failure = std::current_exception();
      }
      DurableFile file(table_);
      const std::string table = ablation_table(results_);
      file.write(table.data(), table.size());
      file.commit();
    }
    std::cout << '\n' << ablation_table(results_) << std::flush;
    if (failure) std::rethrow_exception(failure);
    if (stop_signal() != 0) {
      std::cout << "stopped; the same call goes on" << std::endl;
      return 128 + stop_signal();
    }
    throw_if_diverged();
    return 0;
  }

 private:
  // config.toml has what computed a run, where it was not the default.
  void check_computation(const PretrainFlags& flags) const {
    const std::string path = RunDirectory::config_in(flags.options.out);
    std::error_code unknown;
    if (!std::filesystem::exists(path, unknown)) return;
    const std::vector<RecipeKey> before = read_grid(path, program_);
    const ComputeFlags usual, &now = flags.compute;
    for (const auto& [flag, value, otherwise] : {std::tuple{"device", now.device, usual.device},
                                                 {"precision", now.precision, usual.precision},
                                                 {"conv", now.conv, usual.conv}}) {
      const auto key = std::ranges::find(before, flag, &RecipeKey::name);
      const std::string& then = key == before.end() ? otherwise : key->values.front();
      if (then != value)
        throw UsageError(flags.options.out + ": --" + flag + " was " + then + ", now " + value, "",
                         "another --out begins anew");
    }
  }

  // From where it was, if it has begun before.
  void run(size_t i) {
    PretrainFlags& flags = runs_[i].flags;
    const std::string& out = flags.options.out;
    AblationRun& result = results_[i];
    std::error_code unknown;
    flags.options.resume = std::filesystem::exists(RunDirectory::checkpoint_in(out), unknown);
    result.end = End::stopped;
    try {
      if (run_pretraining(flags, program_.get_name()) != 0) return;
      result.metrics = read_metrics(RunDirectory::metrics_in(out));
      result.end = End::finished;
    } catch (const NonFiniteError& error) {
      result.end = End::diverged;
      std::cout << "diverged: " << printable(error.what()) << "\n  " << printable(error.context())
                << "\n  hint: " << printable(error.hint()) << std::endl;
    } catch (const UsageError& error) {
      throw UsageError(out + ": " + error.what(), error.context(),
                       flags.options.resume ? "another --out begins anew" : error.hint());
    } catch (const Error& error) {
      throw Error(out + ": " + error.what(), error.context(), error.hint());
    }
  }

  void throw_if_diverged() const {
    std::string names;
    for (size_t i = 0; i < runs_.size(); ++i) {
      if (results_[i].end == End::diverged) names += (names.empty() ? "" : "; ") + runs_[i].name;
    }
    if (!names.empty()) throw Error("runs diverged: " + names);
  }

  std::vector<GridRun> runs_;
  std::vector<AblationRun> results_;  // of each
  const std::string table_;
  const CLI::App& program_;
};

int ablate(const AblateFlags& flags, const CLI::App& command) {
  std::vector<GridRun> runs = runs_of_grid(flags.recipe, flags.out, command);
  if (flags.dry_run) {
    for (const GridRun& run : runs) std::cout << printable(run.name) << '\n';
    return 0;
  }
  Ablation ablation(std::move(runs), flags.out, *command.get_parent());
  ablation.check();
  return ablation.run();
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
      ->check(CLI::ExistingFile);
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
