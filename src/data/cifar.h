// CIFAR-10 and CIFAR-100 in their binary formats: records of 1 (CIFAR-10) or 2 label bytes and 32×32
// pixels as three planes (red, green, blue), row by row. The last label byte is the class; the first
// of two, CIFAR-100's superclass, is not used.
//
//   CIFAR-10    data_batch_1.bin … data_batch_5.bin   those that exist, at least one, in order
//               test_batch.bin                        may be missing
//               batches.meta.txt                      names of the classes; may be missing
//   CIFAR-100   train.bin
//               test.bin                              may be missing
//               fine_label_names.txt                  names of the classes; may be missing
//
// The files may hold fewer records than the originals. Labels are below 10 or 100, and below the
// number of names where there are names.
#pragma once

#include "data/dataset.h"

namespace mocograd {

// Both throw Error naming the file, and the record where it is one.
DataSet open_cifar10(const std::string& directory);
DataSet open_cifar100(const std::string& directory);

}  // namespace mocograd
