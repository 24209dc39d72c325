// moco data: a group of commands about data sets, each with its flags in one add_data_… function.
//   pack   an image folder into the binary format of CIFAR-10
#include <iostream>

#include "cli/commands.h"
#include "cli/flags.h"
#include "data/cifar10_writer.h"

namespace mocograd {
namespace {

constexpr int64_t kPackedSize = 32;

struct PackFlags {
  DataFlags data;
  std::string out;
};

void pack(const PackFlags& flags) {
  check_no_cifar10(flags.out);  // before the images are decoded
  const DataSet data = open_data_set(flags.data, kPackedSize);
  write_cifar10(data, flags.out);
  std::cout << data.train.size() << " training and " << (data.test ? data.test->size() : 0)
            << " test images of " << data.classes.size() << " classes are in " << flags.out
            << "; read them with --data cifar10:" << flags.out << '\n';
}

void add_data_pack_command(CLI::App& data) {
  auto flags = std::make_shared<PackFlags>();
  CLI::App* command = data.add_subcommand(
      "pack", "pack an image folder of at most ten classes into CIFAR-10's binary format, 32x32");
  command->add_option("SPEC", flags->data.spec, "folder:DIR")->required();
  command->add_option("--out", flags->out, "directory, made where it does not exist")->required();
  add_on_bad_image_flag(*command, flags->data.on_bad_image);
  command->callback([flags] { pack(*flags); });
}

}  // namespace

void add_data_command(CLI::App& app) {
  CLI::App* data = app.add_subcommand("data", "look at data sets, and pack them");
  data->require_subcommand(1);
  add_data_pack_command(*data);
}

}  // namespace mocograd
