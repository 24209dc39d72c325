// A data set's fingerprint: 16 hexadecimal digits over the pixels, shapes and labels of all images,
// those without labels among them. A resumed run refuses other data by it. Names and folders do not
// count.
#pragma once

#include "data/dataset.h"

namespace mocograd {

std::string fingerprint(const DataSet& data);

}  // namespace mocograd
