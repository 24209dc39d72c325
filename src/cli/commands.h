// The commands of the program, one file each. Each adds its subcommand with its flags, and returns
// nothing: the parser calls what it registered when the command was given.
#pragma once

#include <CLI/CLI.hpp>

namespace mocograd {

void add_pretrain_command(CLI::App& app, int& exit_code);
void add_eval_command(CLI::App& app);  // of the two below
void add_eval_knn_command(CLI::App& eval);
void add_eval_linear_command(CLI::App& eval);
void add_embed_command(CLI::App& app);
void add_export_command(CLI::App& app);
void add_step_command(CLI::App& app);
void add_gradcheck_command(CLI::App& app, int& exit_code);
void add_inspect_command(CLI::App& app);
void add_bench_command(CLI::App& app);
void add_ablate_command(CLI::App& app, int& exit_code);
void add_report_command(CLI::App& app);
void add_data_command(CLI::App& app, int& exit_code);
void add_debug_command(CLI::App& app, int& exit_code);

// Those of `moco data`.
void add_data_info_command(CLI::App& data);
void add_data_fetch_command(CLI::App& data, int& exit_code);

}  // namespace mocograd
