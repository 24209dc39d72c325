// moco eval knn: weighted k-nearest-neighbour accuracy.
#include <algorithm>

#include "cli/commands.h"
#include "cli/contact_sheet.h"
#include "cli/flags.h"
#include "cli/status_line.h"
#include "io/durable_file.h"
#include "io/half_blocks.h"
#include "io/json.h"
#include "io/png.h"
#include "moco/knn.h"

namespace mocograd {
namespace {

struct KnnFlags {
  std::string checkpoint, features = "head", png;
  DataFlags data;
  bool show = false;
  KnnConfig knn;
  ComputeFlags compute;
};

constexpr int64_t kShownClasses = 10, kShownNeighbors = 10, kLeastTile = 32;

// The first test image of each class.
std::vector<int64_t> one_of_each_class(const DataSet& data) {
  std::vector<int64_t> first;
  const int64_t classes = std::min(kShownClasses, static_cast<int64_t>(data.classes.size()));
  const int64_t* labels = data.test->labels.data<int64_t>();
  for (int64_t label = 0; label < classes; ++label) {
    const int64_t* found = std::find(labels, labels + data.test->size(), label);
    if (found != labels + data.test->size()) first.push_back(found - labels);
  }
  return first;
}

ContactSheet picture_of_neighbors(const DataSet& data, const KnnFeatures& features, int64_t tile) {
  const std::vector<int64_t> queries = one_of_each_class(data);
  const int64_t dim = features.test.dim(1);
  const Tensor rows =
      Tensor::empty({static_cast<int64_t>(queries.size()), dim}, features.test.options());
  for (size_t i = 0; i < queries.size(); ++i) {
    const int64_t row = static_cast<int64_t>(i);
    rows.rows(row, row + 1).copy_from(features.test.rows(queries[i], queries[i] + 1));
  }
  const int64_t k = std::min(kShownNeighbors, data.train.size());
  return neighbor_sheet(data, queries, nearest_neighbors(features.bank, rows, k).index, tile);
}

void run(KnnFlags& flags) {
  apply(flags.compute);
  if (!flags.png.empty()) check_writable(flags.png);
  flags.knn.features = parse_features(flags.features);
  const PretrainedEncoder pretrained = load_encoder(flags.checkpoint, device_of(flags.compute));
  const DataSet data = open_data_set(flags.data, pretrained.config.image_size);
  if (!data.test) throw Error(flags.data.spec + " has no test images: kNN needs them");
  StatusLine status;
  status.line(detail::concatenate(
      "kNN of ", data.test->size(), " test images among ", data.train.size(),
      " training images of ", flags.data.spec, ", k ", std::min(flags.knn.k, data.train.size()),
      ", temperature ", flags.knn.temperature, ", ", flags.features, " features"));
  const KnnFeatures features = knn_features(*pretrained.encoder, data, pretrained.config.image_size,
                                            flags.knn.features, embed_progress(status));
  if (!flags.png.empty()) {
    const int64_t tile = std::max(kLeastTile, pretrained.config.image_size);
    const ContactSheet picture = picture_of_neighbors(data, features, tile);
    write_png(flags.png, picture.rgb.data(), picture.height, picture.width);
    status.line(flags.png + ": test images, and beside each the training images nearest to it");
  }
  if (flags.show) {
    constexpr int64_t kTile = 12;
    const ContactSheet picture = picture_of_neighbors(data, features, kTile);
    status.line(half_blocks(picture.rgb.data(), picture.height, picture.width));
  }
  const double top1 = knn_accuracy(features, data, flags.knn);
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
  command
      ->add_option("--png", flags->png,
                   "a picture of test images and their nearest neighbours, into this file")
      ->check(not_empty("--png"));
  command->add_flag("--show", flags->show, "the same picture on the terminal, in colour");
  add_compute_flags(*command, flags->compute);
  command->callback([flags] { run(*flags); });
}

}  // namespace mocograd
