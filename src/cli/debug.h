// The subcommands of moco debug, one file each.
#pragma once

#include <CLI/CLI.hpp>

namespace mocograd {

void add_trace_command(CLI::App& debug);
void add_graph_command(CLI::App& debug);
void add_diff_command(CLI::App& debug, int& exit_code);
void add_replay_command(CLI::App& debug, int& exit_code);
void add_console_command(CLI::App& debug, int& exit_code);

}  // namespace mocograd
