// moco debug: looking into training steps, one subcommand a file.
#include "cli/debug.h"

namespace mocograd {

void add_debug_command(CLI::App& app, int& exit_code) {
  CLI::App* debug = app.add_subcommand("debug", "look into training steps");
  debug->require_subcommand(1);
  add_trace_command(*debug);
  add_graph_command(*debug);
  add_diff_command(*debug, exit_code);
  add_replay_command(*debug, exit_code);
  add_console_command(*debug, exit_code);
}

}  // namespace mocograd
