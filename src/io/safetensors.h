// safetensors: named tensors and string metadata in one file.
//
//   u64 little-endian n; n bytes of JSON; the numbers
//   {"__metadata__": {"key": "value"},
//    "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
//
// The reader is strict, because checkpoints come from anywhere: the header's length fits the file,
// keys are unique, offsets leave no hole, overlap nothing and end with the file, and each tensor's
// bytes are what its dtype and shape need. It asks for memory only after all of that was checked.
// F32, F64, BF16, I64 and U8 can be read; the format's other types are refused by name.
#pragma once

#include <map>
#include <string>

#include "tensor/tensor.h"

namespace mocograd {

struct NamedTensors {
  std::map<std::string, Tensor> tensors;  // in the host's memory
  std::map<std::string, std::string> metadata;
};

// Throws Error naming the file and what is wrong in it.
NamedTensors read_safetensors(const std::string& path);

// Sorted by name, the header padded with spaces to 8 bytes; replaced atomically and durably
// (io/durable_file.h).
void write_safetensors(const std::string& path, const NamedTensors& contents);

}  // namespace mocograd
