#include "moco/queue.h"

#include <algorithm>
#include <cmath>

#include "autograd/observer.h"

namespace mocograd {

KeyQueue::KeyQueue(int64_t size, int64_t dim, RandomStream random, TensorOptions options) {
  MOCO_CHECK(size >= 1 && dim >= 1, "queue: size ", size, ", dim ", dim);
  std::vector<double> values(static_cast<size_t>(size * dim));
  for (int64_t row = 0; row < size; ++row) {
    double square = 0;
    for (int64_t i = row * dim; i < (row + 1) * dim; ++i) {
      values[i] = random.normal();
      square += values[i] * values[i];
    }
    for (int64_t i = row * dim; i < (row + 1) * dim; ++i) values[i] /= std::sqrt(square);
  }
  keys_ = Tensor::from(values, {size, dim}, options);
}

void KeyQueue::enqueue(const Tensor& keys) {
  MOCO_CHECK(keys.defined() && keys.ndim() == 2 && keys.dim(1) == keys_.dim(1),
             "queue: keys must be [N, ", keys_.dim(1), "], got ", keys.describe());
  for (int64_t done = 0; done < keys.dim(0);) {
    const int64_t count = std::min(keys.dim(0) - done, size() - pointer_);  // up to the queue's end
    const Tensor replaced = keys_.rows(pointer_, pointer_ + count);
    replaced.copy_from(keys.rows(done, done + count));
    observe_update(Phase::queue, "enqueue", "queue", {keys.rows(done, done + count)}, {replaced});
    pointer_ = (pointer_ + count) % size();
    done += count;
  }
}

void KeyQueue::restore(const Tensor& keys, int64_t pointer) {
  MOCO_CHECK(0 <= pointer && pointer < size(), "queue: pointer ", pointer, " is outside of [0, ",
             size(), ")");
  keys_.copy_from(keys);
  pointer_ = pointer;
}

}  // namespace mocograd
