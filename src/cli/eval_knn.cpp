// moco eval knn: weighted k-nearest-neighbour accuracy.
#include <iostream>

#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/status_line.h"
#include "io/json.h"
#include "moco/knn.h"

namespace mocograd {
namespace {

struct KnnFlags {
  std::string checkpoint, features = "head";
  DataFlags data;
  KnnConfig knn;
  ComputeFlags compute;
};

void run(KnnFlags& flags) {
  apply(flags.compute);
  flags.knn.features = parse_features(flags.features);
  const PretrainedEncoder pretrained = load_encoder(flags.checkpoint);
  const DataSet data = open_data_set(flags.data, pretrained.config.image_size);
  if (!data.test) throw Error(flags.data.spec + " has no test images: kNN needs them");
  StatusLine status;
  status.line(detail::concatenate(
      "kNN of ", data.test->size(), " test images among ", data.train.size(),
      " training images of ", flags.data.spec, ", k ", std::min(flags.knn.k, data.train.size()),
      ", temperature ", flags.knn.temperature, ", ", flags.features, " features"));
  const double top1 = knn_monitor(*pretrained.encoder, data, pretrained.config.image_size,
                                  flags.knn, embed_progress(status));
  status.line(JsonObject().add("top1", top1).text());
}

}  // namespace

void add_eval_knn_command(CLI::App& eval) {
  auto flags = std::make_shared<KnnFlags>();
  CLI::App* command = eval.add_subcommand("knn", "weighted k-nearest-neighbour accuracy");
  add_checkpoint_flags(*command, flags->checkpoint, flags->data);
  command->add_option("--k", flags->knn.k, "neighbours")
      ->check(integer_in(1))
      ->capture_default_str();
  command
      ->add_option("--temperature", flags->knn.temperature, "of the votes, exp(cosine/temperature)")
      ->check(number_in(0, 1000, true))
      ->capture_default_str();
  command
      ->add_option("--features", flags->features, "the encoder's output, or what enters its head")
      ->check(CLI::IsMember({"head", "backbone"}))
      ->capture_default_str();
  add_compute_flags(*command, flags->compute);
  command->callback([flags] { run(*flags); });
}

}  // namespace mocograd
