// IDX, the format of the MNIST family: a big-endian header, then bytes.
//
//   images   00 00 08 03, count, height, width (u32 each), count · height · width grey values
//   labels   00 00 08 01, count (u32), count labels
//
//   train-images-idx3-ubyte, train-labels-idx1-ubyte
//   t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte       both, or neither: no test images
//
// each also as .idx3-ubyte and .idx1-ubyte, plain or with .gz; the first that exists in this order.
// A grey value becomes red, green and blue. There are as many classes as the highest training label
// says, named by their numbers. Mean and standard deviation are those of the training images.
#pragma once

#include "data/dataset.h"

namespace mocograd {

// Throws Error naming the file, and the offset where it is one.
DataSet open_idx(const std::string& directory);

}  // namespace mocograd
