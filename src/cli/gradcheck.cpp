// moco gradcheck [OP…]: every operation's backward against central differences, as a table.
#include <cstdio>
#include <set>

#include "autograd/gradcheck.h"
#include "cli/commands.h"
#include "cli/flags.h"

namespace mocograd {
namespace {

struct GradcheckFlags {
  std::vector<std::string> ops;
  int draws = 200;
  int64_t seed = 0;
};

// The cases that were asked for, all of them if none was.
std::vector<RegisteredCase> selected_cases(const std::vector<std::string>& ops) {
  if (ops.empty()) return gradcheck_cases();
  std::vector<RegisteredCase> selected;
  for (const std::string& op : ops) {
    const size_t before = selected.size();
    std::string known;
    for (const RegisteredCase& registered : gradcheck_cases()) {
      if (registered.op == op) selected.push_back(registered);
      known += (known.empty() ? "" : ", ") + registered.op;
    }
    if (selected.size() == before)
      throw UsageError("gradcheck: no operation is called " + op, "", "there are " + known);
  }
  return selected;
}

bool run(const GradcheckFlags& flags) {
  bool all_passed = true;
  std::printf("%-22s %6s %10s %12s\n", "operation", "draws", "elements", "max error");
  for (const RegisteredCase& registered : selected_cases(flags.ops)) {
    const GradcheckResult result =
        check_case(registered, flags.draws, static_cast<uint64_t>(flags.seed));
    std::printf("%-22s %6d %10lld %12.2e  %s\n", registered.op.c_str(), flags.draws,
                static_cast<long long>(result.elements), result.max_error,
                result.passed ? "ok" : "FAILED");
    if (!result.passed) std::printf("  %s\n", result.failure.c_str());
    all_passed &= result.passed;
  }
  return all_passed;
}

}  // namespace

void add_gradcheck_command(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<GradcheckFlags>();
  CLI::App* command = app.add_subcommand(
      "gradcheck", "check the operations' gradients against central differences");
  command->add_option("OP", flags->ops, "operations (default: all)");
  command->add_option("--draws", flags->draws, "random shapes for each operation")
      ->check(integer_in(1, 1'000'000))
      ->capture_default_str();
  command->add_option("--seed", flags->seed, "of the shapes and numbers")
      ->check(integer_in(0))
      ->capture_default_str();
  command->callback([flags, &exit_code] { exit_code = run(*flags) ? 0 : 1; });
}

}  // namespace mocograd
