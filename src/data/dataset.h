// Data sets: images in memory, named on the command line by a SPEC.
//
//   shapes         built in, generated (data/shapes.h)
//   cifar10:DIR    the binary format of CIFAR-10 (data/cifar.h)
//   cifar100:DIR   the binary format of CIFAR-100
//   stl10:DIR      the binary format of STL-10 (data/stl10.h)
//   idx:DIR        the MNIST family (data/idx.h)
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace mocograd {

struct ImageSet {
  Tensor images;  // u8 [M, 3, H, W], planar RGB
  Tensor labels;  // i64 [M]

  int64_t size() const { return images.dim(0); }
};

struct DataSet {
  std::string name;
  ImageSet train;
  std::optional<ImageSet> test;
  std::vector<std::string> classes;
  std::array<float, 3> mean, std;  // of RGB in [0, 1], to normalise with

  // The training images and, after them, images without labels. Undefined where there are none.
  Tensor train_and_unlabelled;
  // What pretraining sees: all images but those of the test.
  const Tensor& pretraining_images() const {
    return train_and_unlabelled.defined() ? train_and_unlabelled : train.images;
  }
};

// image_size: of the images that are generated; others keep their own, a view is resized to it.
// Throws UsageError for a SPEC that names nothing known, Error for data that cannot be used.
DataSet open_data_set(const std::string& spec, int64_t image_size);

// An Error where there is no such directory.
void check_directory(const std::string& directory);

// Of each channel, values in [0, 1]; the standard deviation is that of the whole (not n − 1).
struct ChannelStatistics {
  std::array<float, 3> mean, std;
};
ChannelStatistics channel_statistics(const Tensor& images);  // u8 [M, 3, H, W]

}  // namespace mocograd
