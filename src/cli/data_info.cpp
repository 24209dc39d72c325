// moco data info SPEC: how many images of which classes a data set holds, what they look like, and
// what the augmentation makes of them.
#include <algorithm>
#include <iomanip>
#include <iostream>

#include "cli/commands.h"
#include "cli/contact_sheet.h"
#include "cli/flags.h"
#include "cli/status_line.h"
#include "io/durable_file.h"
#include "io/half_blocks.h"
#include "io/png.h"
#include "io/printable.h"

namespace mocograd {
namespace {

constexpr int64_t kColumnsInFile = 10;
constexpr int64_t kTileOnTerminal = 16;

struct DataInfoFlags {
  DataFlags data;
  std::string png, augment = "demo";
  int64_t image_size = 32, seed = 0;
  bool show = false;
};

void print_split(const char* name, const Tensor& images) {
  std::cout << std::left << std::setw(12) << name << std::right << std::setw(8) << images.dim(0)
            << "  " << images.dim(2) << "x" << images.dim(3) << '\n';
}

std::vector<int64_t> count_labels(const ImageSet& images, size_t classes) {
  std::vector<int64_t> count(classes);
  for (int64_t i = 0; i < images.size(); ++i) {
    const int64_t label = images.labels.data<int64_t>()[i];
    if (label >= 0) ++count[static_cast<size_t>(label)];
  }
  return count;
}

void print_classes(const DataSet& data) {
  if (data.classes.empty()) {
    std::cout << "\nno labels\n";
    return;
  }
  std::vector<std::string> names;
  size_t width = 5;
  for (const std::string& name : data.classes) {
    names.push_back(printable(name));
    width = std::max(width, names.back().size());
  }
  const std::vector<int64_t> train = count_labels(data.train, names.size());
  const std::vector<int64_t> test =
      data.test ? count_labels(*data.test, names.size()) : std::vector<int64_t>(names.size());
  const auto column = std::setw(static_cast<int>(width));
  std::cout << '\n'
            << std::left << column << "class"
            << "   train    test\n";
  for (size_t i = 0; i < names.size(); ++i)
    std::cout << std::left << column << names[i] << std::right << std::setw(8) << train[i]
              << std::setw(8) << test[i] << '\n';
}

void print_channels(const char* name, const std::array<float, 3>& measured,
                    const std::array<float, 3>& used) {
  for (const auto& [values, what] :
       {std::pair{measured, "  of the training images"}, std::pair{used, "  used to normalise"}}) {
    std::cout << std::left << std::setw(5) << name << std::right << std::fixed
              << std::setprecision(4);
    for (const float value : values) std::cout << std::setw(8) << value;
    std::cout << what << '\n';
    name = "";
  }
}

void run(const DataInfoFlags& flags) {
  if (!flags.png.empty()) check_writable(flags.png);
  const DataSet data = open_data_set(flags.data, flags.image_size);
  std::cout << data.name << '\n';
  print_split("train", data.train.images);
  const Tensor& all = data.pretraining_images();
  if (all.dim(0) > data.train.size())
    print_split("unlabelled", all.rows(data.train.size(), all.dim(0)));
  if (data.test) print_split("test", data.test->images);
  print_classes(data);
  const ChannelStatistics measured = channel_statistics(data.train.images);
  std::cout << "\n          red   green    blue\n";
  print_channels("mean", measured.mean, data.mean);
  print_channels("std", measured.std, data.std);

  const Augmentation augmentation = parse_augmentation(flags.augment);
  const auto sheet = [&](int64_t columns, int64_t tile) {
    return contact_sheet(data, augmentation, static_cast<uint64_t>(flags.seed), columns, tile);
  };
  const std::string caption =
      "classes; below them training images and two views each, --augment " + flags.augment;
  if (!flags.png.empty()) {
    const ContactSheet picture = sheet(kColumnsInFile, flags.image_size);
    write_png(flags.png, picture.rgb.data(), picture.height, picture.width);
    std::cout << '\n' << flags.png << ": " << caption << '\n';
  }
  if (flags.show || (colors_are_welcome() && flags.png.empty())) {
    const int64_t tile = std::min(flags.image_size, kTileOnTerminal);
    const int64_t columns = std::max<int64_t>(1, (terminal_columns() - 1) / (tile + 1));
    const ContactSheet picture = sheet(columns, tile);
    std::cout << '\n' << caption << '\n';
    std::cout << half_blocks(picture.rgb.data(), picture.height, picture.width);
  }
}

}  // namespace

void add_data_info_command(CLI::App& data) {
  auto flags = std::make_shared<DataInfoFlags>();
  CLI::App* command = data.add_subcommand("info", "what a data set holds and looks like");
  command->add_option("SPEC", flags->data.spec, data_spec_forms())->required()->check(data_spec());
  add_on_bad_image_flag(*command, flags->data.on_bad_image);
  command->add_option("--png", flags->png, "write the pictures into this file")
      ->check(not_empty("--png"));
  command->add_flag("--show", flags->show,
                    "draw the pictures in any case (default: on a terminal with colours, without "
                    "--png)");
  command
      ->add_option("--image-size", flags->image_size,
                   "of a picture, in pixels; at most 16 on the terminal")
      ->check(integer_in(1, 256))
      ->capture_default_str();
  command->add_option("--augment", flags->augment, "recipe of the views that are shown")
      ->check(CLI::IsMember({"demo", "v1", "v2", "none"}))
      ->capture_default_str();
  command->add_option("--seed", flags->seed, "of the views")
      ->check(integer_in(0))
      ->capture_default_str();
  command->callback([flags] { run(*flags); });
}

}  // namespace mocograd
