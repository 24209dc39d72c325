// moco debug diff A B: where do two dumps part?
#include <iostream>

#include "cli/debug.h"
#include "cli/flags.h"
#include "debug/diff.h"

namespace mocograd {
namespace {

struct DiffFlags {
  std::string a, b;
  double tolerance = 0;
  bool all = false;
};

// 0 where they agree, 1 where they differ.
int run(const DiffFlags& flags) {
  const DumpDifference difference = compare(read_safetensors(flags.a), read_safetensors(flags.b));
  std::cout << diff_text(difference, flags.tolerance, flags.all);
  return agree(difference, flags.tolerance) ? 0 : 1;
}

}  // namespace

void add_diff_command(CLI::App& debug, int& exit_code) {
  auto flags = std::make_shared<DiffFlags>();
  CLI::App* command = debug.add_subcommand(
      "diff", "the first tensor in which two dumps differ, and a table by module");
  command->add_option("A", flags->a, "written by moco step --operations, or any safetensors file")
      ->required();
  command->add_option("B", flags->b, "what it is compared with")->required();
  command->add_option("--tolerance", flags->tolerance, "on max |a - b| / max |b| of each tensor")
      ->check(number_in(0, 1e300))
      ->capture_default_str();
  command->add_flag("--all", flags->all, "a line for each tensor");
  command->callback([flags, &exit_code] { exit_code = run(*flags); });
}

}  // namespace mocograd
