// Several tensors for one launch: a block takes kOfBlock numbers of one of them.
#pragma once

#include <array>

#include "cuda/blocks.h"

namespace mocograd::MOCO_CUDA {

// Elements [begin, end) of a tensor of the list.
struct TensorPart {
  int tensor;
  int64_t begin, end;
};

// kArrays: how many arrays of as many numbers come together, a parameter and its gradient, say.
template <class T, int kArrays>
class TensorList {
 public:
  static constexpr int64_t kOfBlock = 16 * kThreads;
  static constexpr int kMost = 4000 / (8 * kArrays + 12);  // arguments of a launch: 4 KiB at most

  int size() const { return size_; }
  // tensors: of type T and one size
  void add(const std::array<const Tensor*, kArrays>& tensors) {
    for (const Tensor* tensor : tensors)
      MOCO_CHECK(tensor->dtype() == dtype_of<T> && tensor->numel() == tensors[0]->numel(),
                 "cuda: a list of tensors of ", name_of(dtype_of<T>), " has one of ",
                 name_of(tensor->dtype()), " or of another size");
    for (int i = 0; i < kArrays; ++i) array_[size_][i] = tensors[i]->template raw<T>();
    numel_[size_] = tensors[0]->numel();
    first_block_[size_ + 1] =
        first_block_[size_] + static_cast<int>(ceil_div(numel_[size_], kOfBlock));
    ++size_;
  }
  Grid grid() const { return blocks_of(kThreads, first_block_[size_]); }

  // What this block takes.
  __device__ TensorPart part() const {
    const int block = static_cast<int>(blockIdx.x);
    int i = 0;
    while (block >= first_block_[i + 1]) ++i;
    const int64_t begin = (block - first_block_[i]) * kOfBlock;
    return {i, begin, begin + kOfBlock < numel_[i] ? begin + kOfBlock : numel_[i]};
  }
  __device__ T* array(int tensor, int i) const { return array_[tensor][i]; }

 private:
  int size_ = 0;
  T* array_[kMost][kArrays];
  int64_t numel_[kMost];
  int first_block_[kMost + 1] = {};  // those of tensor i begin with this one
};
static_assert(sizeof(TensorList<float, 1>) <= 4056 && sizeof(TensorList<float, 2>) <= 4056 &&
                  sizeof(TensorList<float, 3>) <= 4056 && sizeof(TensorList<float, 4>) <= 4056,
              "40 bytes of a launch's arguments are left for numbers");

// Calls launch_list(list, first) with lists that hold what tensors(i) returns for each i < count, in
// order; the list begins with that of `first`.
template <class List, class Tensors, class Launch>
void for_each_list(size_t count, const Tensors& tensors, const Launch& launch_list) {
  for (size_t first = 0; first < count;) {
    List list;
    size_t i = first;
    for (; i < count && list.size() < List::kMost; ++i) list.add(tensors(i));
    launch_list(list, first);
    first = i;
  }
}

}  // namespace mocograd::MOCO_CUDA
