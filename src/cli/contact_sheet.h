// A contact sheet: what a data set and its augmentation look like, in one picture.
//
//   one row for each of the first ten classes: its first training images
//   three rows: the first training images, then two views of each as training sees them
#pragma once

#include "data/augmentation.h"
#include "data/dataset.h"

namespace mocograd {

struct ContactSheet {
  int64_t height = 0, width = 0;
  std::vector<uint8_t> rgb;  // row by row
};

// Tiles of tile × tile pixels, one pixel apart.
ContactSheet contact_sheet(const DataSet& data, Augmentation augmentation, uint64_t seed,
                           int64_t columns, int64_t tile);

}  // namespace mocograd
