// CIFAR-10 in its binary format: records of 1 + 3072 bytes, a label below 10 and 32×32 pixels as
// three planes (red, green, blue), row by row.
//
//   data_batch_1.bin … data_batch_5.bin   those that exist, at least one, in order: training
//   test_batch.bin                        test; may be missing
//   batches.meta.txt                      class names, one a line, at most ten; without them (or
//                                         the file) the names are CIFAR-10's. Labels lie below
//                                         their number
// The files may hold fewer records than the originals' 10,000.
#pragma once

#include "data/dataset.h"

namespace mocograd {

// Throws Error naming the file, and the record where it is one.
DataSet open_cifar10(const std::string& directory);

}  // namespace mocograd
