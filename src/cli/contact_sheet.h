// Contact sheets: small pictures side by side in one.
#pragma once

#include "data/augmentation.h"
#include "data/dataset.h"

namespace mocograd {

struct ContactSheet {
  int64_t height = 0, width = 0;
  std::vector<uint8_t> rgb;  // row by row
};

// What a data set and its augmentation look like:
//   one row for each of the first ten classes: its first training images
//   three rows: the first training images, then two views of each as training sees them
// Tiles of tile × tile pixels, one pixel apart.
ContactSheet contact_sheet(const DataSet& data, Augmentation augmentation, uint64_t seed,
                           int64_t columns, int64_t tile);

// What is near to what: in each row a test image, a gap, and the training images that are its
// neighbours, each with a line below it, green where its class is the test image's, else red.
//   queries: test images, by number; neighbors: i64 [queries.size(), k], training images
ContactSheet neighbor_sheet(const DataSet& data, const std::vector<int64_t>& queries,
                            const Tensor& neighbors, int64_t tile);

}  // namespace mocograd
