// The .npy format of numpy, version 1.0: one array in a file.
//
//   \x93NUMPY \x01 \x00, u16 little-endian n, n bytes of text, the numbers in row-major order
//   {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }
//
// The text is padded with spaces and ends with a line feed, so that the numbers begin at a multiple
// of 64 bytes.
#pragma once

#include <string>

#include "tensor/tensor.h"

namespace mocograd {

// Everything before the numbers.
std::string npy_header(const Tensor& tensor);

// Replaced atomically and durably (io/durable_file.h). Throws Error naming the file.
void write_npy(const std::string& path, const Tensor& tensor);

}  // namespace mocograd
