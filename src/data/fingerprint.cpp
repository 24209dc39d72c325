#include "data/fingerprint.h"

#include "io/hash.h"

namespace mocograd {
namespace {

void add(const Tensor& tensor, Hash64& hash) {
  const std::vector<int64_t> dims = tensor.shape().to_vector();
  hash.add(dims.data(), dims.size() * sizeof dims[0]);
  hash.add(tensor.raw_bytes(), tensor.bytes());
}

}  // namespace

std::string fingerprint(const DataSet& data) {
  Hash64 hash;
  add(data.pretraining_images(), hash);
  add(data.train.labels, hash);
  if (data.test) {
    add(data.test->images, hash);
    add(data.test->labels, hash);
  }
  return hash.text();
}

}  // namespace mocograd
