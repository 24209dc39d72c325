// moco debug console: stepping through the operations of training steps.
#include <unistd.h>

#include <fstream>
#include <iostream>

#include "cli/debug.h"
#include "cli/line_editor.h"
#include "cli/step_source.h"
#include "debug/moco_step.h"
#include "nn/layers.h"

namespace mocograd {
namespace {

struct ConsoleFlags {
  StepSourceFlags source;
  std::string script;

  ConsoleFlags() {  // a net that is small enough to wait for
    source.config.arch = "resnet20";
    source.config.width = 8;
    source.config.dim = 16;
    source.config.queue = 64;
    source.config.batch = 16;
  }
};

// 1 where a script had an error; a person has seen theirs.
int run(const ConsoleFlags& flags) {
  apply(flags.source.compute);
  std::ifstream file(flags.script);
  file.peek();  // a folder can be opened and not be read
  if (!flags.script.empty() && !file) throw Error(flags.script + ": cannot be read");
  const std::unique_ptr<StepSource> source = open_step_source(flags.source);

  std::unique_ptr<ConsoleInput> input;
  const bool typed = flags.script.empty() && isatty(STDIN_FILENO);
  if (typed) {
    input = std::make_unique<LineEditor>(Console::command_names());
  } else {
    std::istream& script = flags.script.empty() ? std::cin : file;
    input = std::make_unique<ScriptInput>(script, std::cout);
  }
  Console console(*input, std::cout);
  console.names().add_parameters(source->moco().encoder_q());
  use_fused_operations(false);
  for (int64_t s = 0; s < source->steps(); ++s) {
    DebuggedStep step =
        moco_step(source->moco(), source->optimizer(), source->learning_rate(s), source->views(s));
    step.title = detail::concatenate("step ", s, " of ", source->steps());
    step.last = s + 1 == source->steps();
    step.normalization = source->normalization();
    if (!console.run(step)) break;
  }
  return !typed && console.errors() > 0 ? 1 : 0;
}

}  // namespace

void add_console_command(CLI::App& debug, int& exit_code) {
  auto flags = std::make_shared<ConsoleFlags>();
  CLI::App* command = debug.add_subcommand(
      "console", "step through the operations of training steps; without flags on a small net");
  command->add_option(
      "--script", flags->script,
      "commands, one a line, # before a comment; at its end the console quits, with "
      "exit code 1 if a command or a check failed (default: stdin)");
  add_step_source_flags(*command, flags->source);
  command->get_option("--width")->description("planes of stage 1")->capture_default_str();
  command->callback([flags, &exit_code] { exit_code = run(*flags); });
}

}  // namespace mocograd
