// The queue of keys: the dictionary that MoCo contrasts against (He et al., CVPR 2020,
// section 3.2).
//
// K keys of dimension D, the oldest replaced first. Kept as rows [K, D], which is what the matrix
// product with the queries reads; checkpoints hold the authors' [D, K].
#pragma once

#include "tensor/random.h"
#include "tensor/tensor.h"

namespace mocograd {

class KeyQueue {
 public:
  // Random normal keys, each normalised to length 1; pointer 0.
  KeyQueue(int64_t size, int64_t dim, RandomStream random, TensorOptions options);

  int64_t size() const { return keys_.dim(0); }
  int64_t pointer() const { return pointer_; }  // the next key to be replaced
  const Tensor& keys() const { return keys_; }  // [K, D]

  // Replaces the N oldest keys, from the pointer on, and moves it by N modulo K; wraps where N does
  // not divide K. keys: [N, D].
  void enqueue(const Tensor& keys);

  // keys: [K, D]; 0 <= pointer < K.
  void restore(const Tensor& keys, int64_t pointer);

 private:
  Tensor keys_;
  int64_t pointer_ = 0;
};

}  // namespace mocograd
