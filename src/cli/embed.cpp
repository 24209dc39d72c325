// moco embed: the features of a data set as numpy files, for whatever one wants to do with them.
//
//   features.npy   f32 [M, D], unaugmented images in the order of the data set
//   labels.npy     i64 [M]
// Existing files are replaced. labels.npy is removed first and written last, so that where it is,
// the two belong together.
#include <filesystem>

#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/status_line.h"
#include "io/directory.h"
#include "io/durable_file.h"
#include "io/npy.h"
#include "moco/features.h"

namespace mocograd {
namespace {

struct EmbedFlags {
  std::string checkpoint, out, features = "backbone", split = "train";
  DataFlags data;
  ComputeFlags compute;
};

// A symbolic link stays, and so does what is no file to replace, a pipe.
void remove_file(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return;
  std::filesystem::remove(std::filesystem::canonical(path, error), error);
  if (error) throw Error(path + ": cannot be removed: " + error.message());
}

void run(const EmbedFlags& flags) {
  apply(flags.compute);
  const PretrainedEncoder pretrained = load_encoder(flags.checkpoint, device_of(flags.compute));
  const int64_t image_size = pretrained.config.image_size;
  const DataSet data = open_data_set(flags.data, image_size);
  if (flags.split == "test" && !data.test)
    throw Error("--split test: " + flags.data.spec + " has no test images");
  const ImageSet& images = flags.split == "test" ? *data.test : data.train;
  make_directory(flags.out);
  StatusLine status;
  const Tensor features = embed(*pretrained.encoder, data, images, image_size,
                                parse_features(flags.features), embed_progress(status));
  const std::string features_path = flags.out + "/features.npy",
                    labels_path = flags.out + "/labels.npy";
  remove_file(labels_path);
  for (const std::string& path : {features_path, labels_path}) remove_leftovers(path);
  write_npy(features_path, features);
  write_npy(labels_path, images.labels);
  status.line(detail::concatenate(features_path, ": ", flags.features, " features of the ",
                                  flags.split, " images of ", flags.data.spec, ", ",
                                  features.describe(), "; their labels in ", labels_path));
}

}  // namespace

void add_embed_command(CLI::App& app) {
  auto flags = std::make_shared<EmbedFlags>();
  CLI::App* command = app.add_subcommand(
      "embed", "features of a data set as numpy files: features.npy, labels.npy");
  add_checkpoint_flags(*command, flags->checkpoint, flags->data);
  command->add_option("--out", flags->out, "directory, made where it does not exist")
      ->required()
      ->check(not_empty("--out"));
  command
      ->add_option("--features", flags->features,
                   "what enters the encoder's head, or its output, of length 1")
      ->check(CLI::IsMember({"backbone", "head"}))
      ->capture_default_str();
  command->add_option("--split", flags->split, "which images")
      ->check(CLI::IsMember({"train", "test"}))
      ->capture_default_str();
  add_compute_flags(*command, flags->compute);
  command->callback([flags] { run(*flags); });
}

}  // namespace mocograd
