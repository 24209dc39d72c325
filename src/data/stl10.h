// STL-10 in its binary format: 96×96 images as three planes (red, green, blue), each column by
// column, and labels from 1 to 10, one byte each, in a file of their own.
//
//   train_X.bin, train_y.bin    labelled training images
//   test_X.bin, test_y.bin      both, or neither: no test images
//   unlabeled_X.bin             more images for pretraining; may be missing
//   class_names.txt             at most ten names, one a line; may be missing
//
// The files may hold fewer images than the originals' 5,000, 8,000 and 100,000. Pretraining sees the
// training and the unlabelled images, kNN and linear evaluation the labelled ones alone.
#pragma once

#include "data/dataset.h"

namespace mocograd {

// Throws Error naming the file, and the offset where it is one.
DataSet open_stl10(const std::string& directory);

}  // namespace mocograd
