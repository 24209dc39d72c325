// moco: the program. Parses the command line, runs one command, and maps what went wrong to one
// line on stderr and an exit code: 0 done, 1 a failed run or unusable input, 2 a wrong call.
#include <exception>
#include <iostream>

#include "cli/commands.h"
#include "tensor/error.h"

namespace {

constexpr int kFailed = 1;
constexpr int kWrongCall = 2;

void print_error(const std::string& message, const std::string& context, const std::string& hint) {
  std::cerr << "error: " << message << '\n';
  if (!context.empty()) std::cerr << "  " << context << '\n';
  if (!hint.empty()) std::cerr << "  hint: " << hint << '\n';
}

int run(int argc, char** argv) {
  using namespace mocograd;
  int exit_code = 0;
  CLI::App app{"mocograd: Momentum Contrast from scratch"};
  app.require_subcommand(1);
  app.fallthrough();
  app.set_config("--recipe", "", "defaults from a TOML file; flags win over it");
  app.allow_config_extras(CLI::config_extras_mode::error);
  add_pretrain_command(app, exit_code);
  add_eval_command(app);
  add_step_command(app);
  add_gradcheck_command(app, exit_code);
  add_inspect_command(app);
  add_bench_command(app);
  add_debug_command(app, exit_code);
  if (argc == 1) {
    std::cerr << app.help();
    return kWrongCall;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& request) {  // --help
    return app.exit(request);
  } catch (const CLI::ParseError& error) {
    print_error(error.what(), "", "moco COMMAND --help lists the flags");
    return kWrongCall;
  }
  return exit_code;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const mocograd::UsageError& error) {
    print_error(error.what(), error.context(), error.hint());
    return kWrongCall;
  } catch (const mocograd::Error& error) {
    print_error(error.what(), error.context(), error.hint());
    return kFailed;
  } catch (const std::exception& error) {
    print_error(error.what(), "", "");
    return kFailed;
  }
}
