// Weighted k-nearest-neighbour classification of frozen features (Wu et al., CVPR 2018,
// section 3.4; the monitor of the authors' CIFAR notebook).
//
//   s_ij = ⟨f_i, b_j⟩             cosine of test feature i and bank feature j
//   score_ic = Σ over the k nearest j with label c of exp(s_ij / T);   prediction = argmax_c
#pragma once

#include "moco/features.h"

namespace mocograd {

struct KnnConfig {
  int64_t k = 200;  // cut to the size of the bank
  double temperature = 0.1;
  Features features = Features::head;
};

// The k nearest rows of the bank to each row, the nearest first.
//   bank: [M, D], features: [N, D], rows of length 1; similarity: f32 [N, k], index: i64 [N, k]
// On the host. Requires: 1 <= k <= M.
struct Neighbors {
  Tensor similarity, index;
};
Neighbors nearest_neighbors(const Tensor& bank, const Tensor& features, int64_t k);

// Per cent of `features` classified right.
//   bank: [M, D], features: [N, D], rows of length 1; labels: i64 [M] and [N], in [0, classes)
double knn_accuracy(const Tensor& bank, const Tensor& bank_labels, const Tensor& features,
                    const Tensor& labels, int64_t classes, const KnnConfig& config = {});

// The features of the training images and of the test images, unaugmented, rows of length 1.
struct KnnFeatures {
  Tensor bank, test;
};
KnnFeatures knn_features(ResNet& encoder, const DataSet& data, int64_t image_size,
                         Features features, const EmbedProgress& progress = {});
double knn_accuracy(const KnnFeatures& features, const DataSet& data, const KnnConfig& config);

// kNN of the test images against the training images. Nothing in the encoder changes. Requires:
// data.test.
double knn_monitor(ResNet& encoder, const DataSet& data, int64_t image_size,
                   const KnnConfig& config = {}, const EmbedProgress& progress = {});

}  // namespace mocograd
