// moco: the program. Parses the command line, runs one command, and maps what went wrong to one
// line on stderr and an exit code: 0 done, 1 a failed run or unusable input, 2 a wrong call.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <iostream>
#include <new>

#include "cli/commands.h"
#include "cli/recipe.h"
#include "io/printable.h"
#include "tensor/error.h"
#include "tensor/version.h"

namespace {

constexpr int kFailed = 1;
constexpr int kWrongCall = 2;

void print_error(const std::string& message, const std::string& context, const std::string& hint) {
  std::cerr << "error: " << mocograd::printable(message) << '\n';
  if (!context.empty()) std::cerr << "  " << mocograd::printable(context) << '\n';
  if (!hint.empty()) std::cerr << "  hint: " << mocograd::printable(hint) << '\n';
}

// The option of a command that was called, or of its commands, that has more values than it takes.
const CLI::Option* given_too_often(const CLI::App& command) {
  for (const CLI::Option* option : command.get_options()) {
    if (static_cast<int>(option->count()) > std::max(1, option->get_items_expected_max()))
      return option;
  }
  for (const CLI::App* called : command.get_subcommands()) {
    if (const CLI::Option* option = given_too_often(*called)) return option;
  }
  return nullptr;
}

// A word or flag that nobody knows is a mistake, whatever else there is.
std::string unknown_word(const CLI::App& app) {
  const std::vector<std::string> unknown = app.remaining(true);
  return unknown.empty() ? "" : "there is no command or flag '" + unknown.front() + "'";
}

// What is wrong with a call, where CLI11's own text would name something else or less.
std::string message_of(const CLI::ParseError& error, const CLI::App& app) {
  if (dynamic_cast<const CLI::ConfigError*>(&error))
    return app.get_config_ptr()->results().front() + ": " + error.what();
  if (dynamic_cast<const CLI::ArgumentMismatch*>(&error)) {
    if (const CLI::Option* option = given_too_often(app)) {
      const size_t times = option->count();
      return option->get_name() + " is given " +
             (times == 2 ? "twice" : std::to_string(times) + " times");
    }
  }
  // A flag that is missing, or a command, was perhaps misspelt: what nobody knows comes first.
  const std::string unknown = unknown_word(app);
  const bool missing_or_extra = dynamic_cast<const CLI::RequiredError*>(&error) ||
                                dynamic_cast<const CLI::ExtrasError*>(&error);
  if (missing_or_extra && !unknown.empty()) return unknown;
  return error.what();
}

int run(int argc, char** argv) {
  using namespace mocograd;
  int exit_code = 0;
  CLI::App app{"mocograd: Momentum Contrast from scratch", argc > 0 ? argv[0] : "moco"};
  app.require_subcommand(1);
  app.fallthrough();
  app.set_version_flag("--version", kVersion);
  add_pretrain_command(app, exit_code);
  add_eval_command(app);
  add_step_command(app);
  add_embed_command(app);
  add_export_command(app);
  add_gradcheck_command(app, exit_code);
  add_inspect_command(app);
  add_bench_command(app);
  add_report_command(app);
  add_ablate_command(app, exit_code);
  add_data_command(app, exit_code);
  add_debug_command(app, exit_code);
  add_recipe_flag(app);
  if (argc <= 1) {
    std::cerr << app.help();
    return kWrongCall;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& request) {  // --help, --version
    const std::string unknown = unknown_word(app);
    if (unknown.empty()) return app.exit(request);
    print_error(unknown, "", "moco COMMAND --help lists the flags");
    return kWrongCall;
  } catch (const CLI::ParseError& error) {
    print_error(message_of(error, app), "", "moco COMMAND --help lists the flags");
    return kWrongCall;
  }
  return exit_code;
}

// Nothing that was printed may be lost in silence.
void check_standard_output() {
  errno = 0;
  const bool flushed = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  if (!std::cout.flush() || !flushed)
    throw mocograd::Error(std::string("standard output cannot be written") + (errno ? ": " : "") +
                          (errno ? std::strerror(errno) : ""));
}

// For what is thrown where no handler is: before main, or in a thread.
[[noreturn]] void end_in_one_line() {
  const char* text = "error: out of memory\n";
  try {
    if (std::current_exception()) throw;
    text = "error: terminated without an exception\n";
  } catch (const std::bad_alloc&) {
  } catch (...) {
    std::abort();  // a mistake in the program: keep the place
  }
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text, std::strlen(text));
  _exit(kFailed);
}

// Before all other objects of static lifetime, which allocate.
[[gnu::constructor(101)]] void handle_early_errors() {
  std::set_terminate(end_in_one_line);
}

// Where the caller closed one, the next file to be opened would take its place, and what is printed.
void open_standard_descriptors() {
  int descriptor = 0;
  while (descriptor >= 0 && descriptor <= STDERR_FILENO) descriptor = open("/dev/null", O_RDWR);
  if (descriptor >= 0) close(descriptor);
}

}  // namespace

int main(int argc, char** argv) {
  open_standard_descriptors();
  // A file that grows beyond the limit, and a pipe that nobody reads, are errors of their writes.
  for (const int lost : {SIGXFSZ, SIGPIPE}) signal(lost, SIG_IGN);
  try {
    const int exit_code = run(argc, argv);
    check_standard_output();
    return exit_code;
  } catch (const mocograd::UsageError& error) {
    print_error(error.what(), error.context(), error.hint());
    return kWrongCall;
  } catch (const mocograd::Error& error) {
    print_error(error.what(), error.context(), error.hint());
    return kFailed;
  } catch (const std::bad_alloc&) {
    print_error("out of memory", "", "");
    return kFailed;
  } catch (const std::exception& error) {
    print_error(error.what(), "", "");
    return kFailed;
  }
}
