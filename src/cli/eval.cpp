// moco eval knn: how good are the features of a checkpoint? The last line on stdout is JSON.
#include <iostream>

#include "cli/commands.h"
#include "cli/flags.h"
#include "io/json_lines.h"
#include "moco/checkpoint.h"
#include "moco/knn.h"

namespace mocograd {
namespace {

struct KnnFlags {
  std::string checkpoint;
  DataFlags data;
  KnnConfig knn;
  ComputeFlags compute;
};

void run(const KnnFlags& flags) {
  apply(flags.compute);
  const NamedTensors checkpoint = read_safetensors(flags.checkpoint);
  const PretrainConfig config = checkpoint_config(checkpoint);
  const DataSet data = open_data_set(flags.data, config.image_size);
  if (!data.test) throw Error(data.name + " has no test images: kNN needs them");
  ResNet encoder("encoder_q", config.encoder(), RandomStream(0, Purpose::initial_weights));
  load_state(encoder, "encoder_q.", checkpoint.tensors);
  std::cout << "kNN of " << data.test->size() << " test images among " << data.train.size()
            << " training images of " << data.name << ", k "
            << std::min(flags.knn.k, data.train.size()) << ", temperature " << flags.knn.temperature
            << '\n';
  const double top1 = knn_monitor(encoder, data, config.image_size, flags.knn);
  std::cout << JsonObject().add("top1", top1).text() << '\n';
}

}  // namespace

void add_eval_command(CLI::App& app) {
  auto flags = std::make_shared<KnnFlags>();
  CLI::App* eval = app.add_subcommand("eval", "evaluate a checkpoint");
  eval->require_subcommand(1);
  CLI::App* knn = eval->add_subcommand("knn", "weighted k-nearest-neighbour accuracy");
  knn->add_option("--checkpoint", flags->checkpoint, "written by moco pretrain")->required();
  add_data_flags(*knn, flags->data);
  knn->add_option("--k", flags->knn.k, "neighbours")->check(integer_in(1))->capture_default_str();
  knn->add_option("--temperature", flags->knn.temperature, "of the votes, exp(cosine/temperature)")
      ->check(number_in(0, 1000, true))
      ->capture_default_str();
  add_compute_flags(*knn, flags->compute);
  knn->callback([flags] { run(*flags); });
}

}  // namespace mocograd
