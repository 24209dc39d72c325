#include "moco/features.h"

#include <algorithm>

#include "autograd/ops/rows.h"
#include "data/loader.h"
#include "moco/checkpoint.h"
#include "tensor/statistics.h"

namespace mocograd {

Features parse_features(const std::string& name) {
  if (name == "head") return Features::head;
  if (name == "backbone") return Features::backbone;
  throw UsageError("--features " + name + ": must be head or backbone");
}

PretrainedEncoder load_encoder(const std::string& path, Device device, const std::string& name) {
  const NamedTensors checkpoint = read_safetensors(path);
  try {
    PretrainedEncoder result{checkpoint_config(checkpoint), nullptr};
    result.encoder = std::make_unique<ResNet>(name, result.config.encoder({.device = device}),
                                              RandomStream(0, Purpose::none));
    load_state(*result.encoder, name + ".", checkpoint.tensors);
    return result;
  } catch (const Error& error) {
    throw Error(path + ": " + error.what(), "", error.hint());
  }
}

Tensor embed(ResNet& encoder, const DataSet& data, const ImageSet& images, int64_t image_size,
             Features features, const EmbedProgress& progress) {
  constexpr int64_t kBatch = 256;
  const EvaluationMode evaluation(encoder);
  const NoGrad no_grad;
  const TensorOptions options = encoder.config().options;
  const bool head = features == Features::head;
  const Tensor all =
      Tensor::empty({images.size(), head ? encoder.config().dim : encoder.feature_dim()}, options);
  for (int64_t begin = 0; begin < images.size(); begin += kBatch) {
    const int64_t end = std::min(begin + kBatch, images.size());
    const Variable batch(
        evaluation_batch(images, begin, end, image_size, data.mean, data.std, options.device)
            .to(options.dtype));
    const Variable y = head ? l2_normalize(encoder(batch)) : encoder.features(batch);
    if (!all_finite(y.data()))
      throw Error(detail::concatenate("features of images ", begin, " to ", end - 1,
                                      " are not finite: are the weights?"));
    all.rows(begin, end).copy_from(y.data());
    if (progress) progress(end, images.size());
  }
  return all;
}

}  // namespace mocograd
