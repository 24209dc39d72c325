// The commands of the program, one file each. Each adds its subcommand with its flags, and returns
// nothing: the parser calls what it registered when the command was given.
#pragma once

#include <CLI/CLI.hpp>

namespace mocograd {

void add_pretrain_command(CLI::App& app, int& exit_code);
void add_eval_command(CLI::App& app);
void add_step_command(CLI::App& app);
void add_gradcheck_command(CLI::App& app, int& exit_code);
void add_inspect_command(CLI::App& app);
void add_bench_command(CLI::App& app);
void add_debug_command(CLI::App& app, int& exit_code);

}  // namespace mocograd
