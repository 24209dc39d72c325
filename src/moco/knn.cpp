#include "moco/knn.h"

#include <algorithm>
#include <cmath>

#include "autograd/ops/rows.h"
#include "data/loader.h"
#include "tensor/backend.h"

namespace mocograd {
namespace {

constexpr int64_t kBatch = 256;

// Puts an encoder in evaluation mode and back.
class EvaluationMode {
 public:
  explicit EvaluationMode(Module& module) : module_(module), before_(module.training()) {
    module_.eval();
  }
  ~EvaluationMode() { module_.train(before_); }
  EvaluationMode(const EvaluationMode&) = delete;
  EvaluationMode& operator=(const EvaluationMode&) = delete;

 private:
  Module& module_;
  bool before_;
};

// The class with the highest score among k neighbours; the lowest class among equals.
int64_t vote(const float* similarity, const int64_t* neighbor, int64_t k, const int64_t* label,
             double temperature, std::vector<double>& score) {
  std::fill(score.begin(), score.end(), 0.0);
  for (int64_t i = 0; i < k; ++i)
    score[label[neighbor[i]]] += std::exp(double{similarity[i]} / temperature);
  return std::max_element(score.begin(), score.end()) - score.begin();
}

}  // namespace

double knn_accuracy(const Tensor& bank, const Tensor& bank_labels, const Tensor& features,
                    const Tensor& labels, int64_t classes, const KnnConfig& config) {
  MOCO_CHECK(bank.dim(0) > 0 && features.dim(0) > 0 && bank.dim(1) == features.dim(1), "knn: bank ",
             bank.describe(), ", features ", features.describe());
  const int64_t k = std::min(config.k, bank.dim(0));
  const Tensor bank_label = bank_labels.to(Device::cpu), label = labels.to(Device::cpu);
  std::vector<double> score(static_cast<size_t>(classes));
  int64_t right = 0;
  for (int64_t begin = 0; begin < features.dim(0); begin += kBatch) {
    const Tensor batch = features.rows(begin, std::min(begin + kBatch, features.dim(0)));
    const int64_t rows = batch.dim(0);
    const Tensor similarity = Tensor::empty({rows, bank.dim(0)}, bank.options());
    bank.backend().gemm(batch, false, bank, true, similarity);
    const Tensor value = Tensor::empty({rows, k}, bank.options());
    const Tensor index = Tensor::empty({rows, k}, {DType::i64, bank.device()});
    bank.backend().top_k(similarity, value, index);
    const Tensor nearest = value.to(Device::cpu).to(DType::f32), neighbor = index.to(Device::cpu);
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t predicted =
          vote(nearest.data<float>() + i * k, neighbor.data<int64_t>() + i * k, k,
               bank_label.data<int64_t>(), config.temperature, score);
      right += predicted == label.data<int64_t>()[begin + i];
    }
  }
  return 100.0 * static_cast<double>(right) / static_cast<double>(features.dim(0));
}

Tensor embed(ResNet& encoder, const DataSet& data, const ImageSet& images, int64_t image_size,
             const std::function<void()>& before_batch) {
  const EvaluationMode evaluation(encoder);
  const NoGrad no_grad;
  const TensorOptions options = encoder.config().options;
  const Tensor all = Tensor::empty({images.size(), encoder.config().dim}, options);
  for (int64_t begin = 0; begin < images.size(); begin += kBatch) {
    if (before_batch) before_batch();
    const int64_t end = std::min(begin + kBatch, images.size());
    const Tensor batch = evaluation_batch(images, begin, end, image_size, data.mean, data.std)
                             .to(options.dtype)
                             .to(options.device);
    all.rows(begin, end).copy_from(l2_normalize(encoder(Variable(batch))).data());
  }
  return all;
}

double knn_monitor(ResNet& encoder, const DataSet& data, int64_t image_size,
                   const KnnConfig& config, const std::function<void()>& before_batch) {
  MOCO_CHECK(data.test, "knn: ", data.name, " has no test images");
  const Tensor bank = embed(encoder, data, data.train, image_size, before_batch);
  const Tensor features = embed(encoder, data, *data.test, image_size, before_batch);
  return knn_accuracy(bank, data.train.labels, features, data.test->labels,
                      static_cast<int64_t>(data.classes.size()), config);
}

}  // namespace mocograd
