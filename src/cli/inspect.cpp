// moco inspect F: what is in a checkpoint.
#include <iostream>

#include "cli/commands.h"
#include "io/inspect.h"

namespace mocograd {

void add_inspect_command(CLI::App& app) {
  auto path = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand(
      "inspect", "names, shapes, dtypes and statistics of a checkpoint, and its configuration");
  command->add_option("F", *path, "a safetensors file")->required();
  command->callback([path] { std::cout << inspect_text(read_safetensors(*path)); });
}

}  // namespace mocograd
