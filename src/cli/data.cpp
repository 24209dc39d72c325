// moco data: look at data sets, get them, and pack an image folder into CIFAR-10's binary format.
#include <iostream>

#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/staging_folder.h"
#include "cli/stop_signal.h"
#include "data/cifar10_writer.h"

namespace mocograd {
namespace {

constexpr int64_t kPackedSize = 32;

struct PackFlags {
  DataFlags data;
  std::string out;
};

void pack(const PackFlags& flags) {
  if (!flags.data.spec.starts_with("folder:"))
    throw UsageError("data pack: SPEC is folder:DIR, got '" + flags.data.spec + "'");
  StagingFolder folder(flags.out);  // before the images are decoded
  const DataSet data = open_data_set(flags.data, kPackedSize);
  write_cifar10(data, folder.staging());
  throw_if_stopped();
  folder.commit();
  std::cout << data.train.size() << " training and " << (data.test ? data.test->size() : 0)
            << " test images of " << data.classes.size() << " classes are in " << flags.out
            << "; read them with --data cifar10:" << flags.out << '\n';
}

void add_data_pack_command(CLI::App& data, int& exit_code) {
  auto flags = std::make_shared<PackFlags>();
  CLI::App* command = data.add_subcommand(
      "pack", "pack an image folder of at most ten classes into CIFAR-10's binary format, 32x32");
  command->add_option("SPEC", flags->data.spec, "folder:DIR")->required();
  command->add_option("--out", flags->out, "a folder that is new or empty")
      ->required()
      ->check(not_empty("--out"));
  add_on_bad_image_flag(*command, flags->data.on_bad_image);
  command->callback([flags, &exit_code] { exit_code = all_or_nothing([&] { pack(*flags); }); });
}

}  // namespace

void add_data_command(CLI::App& app, int& exit_code) {
  CLI::App* data = app.add_subcommand("data", "look at data sets, download and pack them");
  data->require_subcommand(1);
  add_data_info_command(*data);
  add_data_fetch_command(*data, exit_code);
  add_data_pack_command(*data, exit_code);
}

}  // namespace mocograd
