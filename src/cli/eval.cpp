// moco eval: how good are the features of a checkpoint? The last line on stdout is JSON.
#include "cli/commands.h"

namespace mocograd {

void add_eval_command(CLI::App& app) {
  CLI::App* eval = app.add_subcommand("eval", "evaluate a checkpoint");
  eval->require_subcommand(1);
  add_eval_knn_command(*eval);
  add_eval_linear_command(*eval);
}

}  // namespace mocograd
