// Weighted k-nearest-neighbour classification of frozen features (Wu et al., CVPR 2018,
// section 3.4; the monitor of the authors' CIFAR notebook).
//
//   s_ij = ⟨f_i, b_j⟩             cosine of test feature i and bank feature j
//   score_ic = Σ over the k nearest j with label c of exp(s_ij / T);   prediction = argmax_c
#pragma once

#include <functional>

#include "data/dataset.h"
#include "nn/resnet.h"

namespace mocograd {

struct KnnConfig {
  int64_t k = 200;  // cut to the size of the bank
  double temperature = 0.1;
};

// Per cent of `features` classified right.
//   bank: [M, D], features: [N, D], rows of length 1; labels: i64 [M] and [N], in [0, classes)
double knn_accuracy(const Tensor& bank, const Tensor& bank_labels, const Tensor& features,
                    const Tensor& labels, int64_t classes, const KnnConfig& config = {});

// The encoder's output for every image, unaugmented, rows normalised: [M, dim]. In evaluation mode,
// without a graph; the encoder's mode is put back, nothing in it changes. before_batch is called
// before each batch, and gives up by throwing.
Tensor embed(ResNet& encoder, const DataSet& data, const ImageSet& images, int64_t image_size,
             const std::function<void()>& before_batch = {});

// kNN of the test images against the training images. Requires: data.test.
double knn_monitor(ResNet& encoder, const DataSet& data, int64_t image_size,
                   const KnnConfig& config = {}, const std::function<void()>& before_batch = {});

}  // namespace mocograd
