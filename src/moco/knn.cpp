#include "moco/knn.h"

#include <algorithm>
#include <cmath>

#include "autograd/ops/rows.h"
#include "tensor/backend.h"

namespace mocograd {
namespace {

constexpr int64_t kBatch = 256;

// The class with the highest score among k neighbours, the nearest first; the lowest class among
// equals. Each score is divided by exp(s_0 / T), that of the nearest, which might overflow.
int64_t vote(const float* similarity, const int64_t* neighbor, int64_t k, const int64_t* label,
             double temperature, std::vector<double>& score) {
  std::fill(score.begin(), score.end(), 0.0);
  for (int64_t i = 0; i < k; ++i)
    score[label[neighbor[i]]] +=
        std::exp((double{similarity[i]} - double{similarity[0]}) / temperature);
  return std::max_element(score.begin(), score.end()) - score.begin();
}

// Labels in the host's memory, one for each row.
Tensor checked_labels(const Tensor& labels, int64_t rows, int64_t classes) {
  MOCO_CHECK(labels.defined() && labels.dtype() == DType::i64 && labels.shape() == Shape({rows}),
             "knn: labels of ", rows, " rows must be i64 [", rows, "], got ", labels.describe());
  const Tensor host = labels.to(Device::cpu);
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t label = host.data<int64_t>()[i];
    MOCO_CHECK(0 <= label && label < classes, "knn: label ", label, " of row ", i,
               " is not one of ", classes, " classes");
  }
  return host;
}

}  // namespace

Neighbors nearest_neighbors(const Tensor& bank, const Tensor& features, int64_t k) {
  MOCO_CHECK(1 <= k && k <= bank.dim(0), "knn: k = ", k, " of a bank of ", bank.dim(0));
  const int64_t rows = features.dim(0);
  const Tensor similarity = Tensor::empty({rows, bank.dim(0)}, bank.options());
  bank.backend().gemm(features, false, bank, true, similarity);
  const Tensor value = Tensor::empty({rows, k}, bank.options());
  const Tensor index = Tensor::empty({rows, k}, {DType::i64, bank.device()});
  bank.backend().top_k(similarity, value, index);
  return {value.to(Device::cpu).to(DType::f32), index.to(Device::cpu)};
}

double knn_accuracy(const Tensor& bank, const Tensor& bank_labels, const Tensor& features,
                    const Tensor& labels, int64_t classes, const KnnConfig& config) {
  MOCO_CHECK(bank.dim(0) > 0 && features.dim(0) > 0 && bank.dim(1) == features.dim(1), "knn: bank ",
             bank.describe(), ", features ", features.describe());
  const int64_t k = std::min(config.k, bank.dim(0));
  const Tensor bank_label = checked_labels(bank_labels, bank.dim(0), classes);
  const Tensor label = checked_labels(labels, features.dim(0), classes);
  std::vector<double> score(static_cast<size_t>(classes));
  int64_t right = 0;
  for (int64_t begin = 0; begin < features.dim(0); begin += kBatch) {
    const Tensor batch = features.rows(begin, std::min(begin + kBatch, features.dim(0)));
    const Neighbors near = nearest_neighbors(bank, batch, k);
    for (int64_t i = 0; i < batch.dim(0); ++i) {
      const int64_t predicted =
          vote(near.similarity.data<float>() + i * k, near.index.data<int64_t>() + i * k, k,
               bank_label.data<int64_t>(), config.temperature, score);
      right += predicted == label.data<int64_t>()[begin + i];
    }
  }
  return 100.0 * static_cast<double>(right) / static_cast<double>(features.dim(0));
}

KnnFeatures knn_features(ResNet& encoder, const DataSet& data, int64_t image_size,
                         Features features, const EmbedProgress& progress) {
  MOCO_CHECK(data.test, "knn: ", data.name, " has no test images");
  const NoGrad no_grad;
  const auto rows_of_length_1 = [&](const ImageSet& images) {
    const Tensor rows = embed(encoder, data, images, image_size, features, progress);
    if (features == Features::head) return rows;
    return l2_normalize(Variable(rows)).data();
  };
  return {rows_of_length_1(data.train), rows_of_length_1(*data.test)};
}

double knn_accuracy(const KnnFeatures& features, const DataSet& data, const KnnConfig& config) {
  return knn_accuracy(features.bank, data.train.labels, features.test, data.test->labels,
                      static_cast<int64_t>(data.classes.size()), config);
}

double knn_monitor(ResNet& encoder, const DataSet& data, int64_t image_size,
                   const KnnConfig& config, const EmbedProgress& progress) {
  return knn_accuracy(knn_features(encoder, data, image_size, config.features, progress), data,
                      config);
}

}  // namespace mocograd
