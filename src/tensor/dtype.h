// The element types a tensor can hold, chosen at run time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/error.h"

namespace mocograd {

enum class DType {
  f32,  // training
  f64,  // gradcheck and parity with a reference
  i64,  // labels, indices, counters
  u8,   // images as stored, the winning tap of a max-pool window
};

size_t size_of(DType dtype);       // bytes of one element
const char* name_of(DType dtype);  // "f32"

template <class T>
inline constexpr DType dtype_of = DType::f32;
template <>
inline constexpr DType dtype_of<double> = DType::f64;
template <>
inline constexpr DType dtype_of<int64_t> = DType::i64;
template <>
inline constexpr DType dtype_of<uint8_t> = DType::u8;

}  // namespace mocograd
