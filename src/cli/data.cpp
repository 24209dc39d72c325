// moco data: look at data sets, and get them.
#include "cli/commands.h"

namespace mocograd {

void add_data_command(CLI::App& app, int& exit_code) {
  CLI::App* data = app.add_subcommand("data", "look at a data set, or download one");
  data->require_subcommand(1);
  add_data_info_command(*data);
  add_data_fetch_command(*data, exit_code);
}

}  // namespace mocograd
