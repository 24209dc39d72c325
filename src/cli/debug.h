// The subcommands of moco debug, one file each.
#pragma once

#include <CLI/CLI.hpp>

#include "debug/trace.h"

namespace mocograd {

// A trace in a new file. Throws where a file is there already.
std::unique_ptr<TraceSink> trace_file(const std::string& path, TraceLevel level);

void add_trace_command(CLI::App& debug);
void add_diff_command(CLI::App& debug, int& exit_code);
void add_replay_command(CLI::App& debug, int& exit_code);
void add_console_command(CLI::App& debug, int& exit_code);

}  // namespace mocograd
