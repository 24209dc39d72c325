// Packing a data set into the binary format of CIFAR-10 (data/cifar.h): data_batch_1.bin with all
// training images, test_batch.bin where there is a test, batches.meta.txt with the classes.
#pragma once

#include "data/dataset.h"

namespace mocograd {

// Into a directory that is there. Each file is written durably, the training last; the first error
// ends it. Throws for images that are not 32×32, for more than ten classes, and for none, before
// anything is written.
void write_cifar10(const DataSet& data, const std::string& directory);

}  // namespace mocograd
