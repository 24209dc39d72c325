// Data sets: images in memory, named on the command line by a SPEC.
//
//   shapes         built in, generated (data/shapes.h)
//   cifar10:DIR    the binary format of CIFAR-10 (data/cifar.h)
//   cifar100:DIR   the binary format of CIFAR-100
//   stl10:DIR      the binary format of STL-10 (data/stl10.h)
//   idx:DIR        the MNIST family (data/idx.h)
//   folder:DIR     PNG and JPEG files, a folder a class (data/image_folder.h)
#pragma once

#include <array>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace mocograd {

struct ImageSet {
  Tensor images;  // u8 [M, 3, H, W], planar RGB
  Tensor labels;  // i64 [M]; -1 where there are none

  int64_t size() const { return images.dim(0); }
};

struct DataSet {
  std::string name;
  ImageSet train;
  std::optional<ImageSet> test;
  std::vector<std::string> classes;   // empty where there are no labels
  std::array<float, 3> mean, std;     // of RGB in [0, 1], to normalise with
  std::vector<std::string> warnings;  // what was passed over, for the user

  // The training images and, after them, images without labels. Undefined where there are none.
  Tensor train_and_unlabelled;
  // What pretraining sees: all images but those of the test.
  const Tensor& pretraining_images() const {
    return train_and_unlabelled.defined() ? train_and_unlabelled : train.images;
  }
};

// Of data sets that are decoded from image files.
struct DecodeOptions {
  bool skip_bad_images = false;  // otherwise the first one is an Error
  int threads = 0;               // 0: as many as the machine has; changes no result
  // One call at a time, on any thread; the last has done == total. What it throws ends the decoding.
  std::function<void(int64_t done, int64_t total)> progress = {};
};

// "shapes, cifar10:DIR, …": all that there are.
std::string data_spec_forms();
// Throws UsageError for a SPEC of another form.
void check_data_spec(const std::string& spec);

// image_size: of the images that are generated or decoded; others keep their own, and a view is
// resized to it. Throws UsageError as check_data_spec does, Error for data that cannot
// be used.
DataSet open_data_set(const std::string& spec, int64_t image_size,
                      const DecodeOptions& options = {});

// An Error where there is no such directory.
void check_directory(const std::string& directory);

// Of each channel, values in [0, 1]; the standard deviation is that of the whole (not n − 1).
struct ChannelStatistics {
  std::array<float, 3> mean, std;
};
ChannelStatistics channel_statistics(const Tensor& images);  // u8 [M, 3, H, W]

}  // namespace mocograd
