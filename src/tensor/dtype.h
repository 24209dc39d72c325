// The element types a tensor can hold, chosen at run time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/bfloat16.h"

namespace mocograd {

enum class DType {
  f32,   // training
  f64,   // gradcheck and parity with a reference
  bf16,  // activations and their gradients, with --precision bf16
  i64,   // labels, indices, counters
  u8,    // images as stored, the winning tap of a max-pool window
};

size_t size_of(DType dtype);       // bytes of one element
const char* name_of(DType dtype);  // "f32"

template <class T>
inline constexpr DType dtype_of = DType::f32;
template <>
inline constexpr DType dtype_of<double> = DType::f64;
template <>
inline constexpr DType dtype_of<BFloat16> = DType::bf16;
template <>
inline constexpr DType dtype_of<int64_t> = DType::i64;
template <>
inline constexpr DType dtype_of<uint8_t> = DType::u8;

// Calls f with a value of the element type that dtype names:
//   with_element_type(x.dtype(), [&](auto zero) { using T = decltype(zero); … });
// (Always inlined: the CPU kernels call these from files built for wider instruction sets.)
template <class F>
MOCO_ALWAYS_INLINE void with_element_type(DType dtype, const F& f) {
  switch (dtype) {
    case DType::f32:
      return f(float{});
    case DType::f64:
      return f(double{});
    case DType::bf16:
      return f(BFloat16{});
    case DType::i64:
      return f(int64_t{});
    case DType::u8:
      return f(uint8_t{});
  }
}

// The same, where only f32, f64 and bf16 are possible: activations. (Here and below: operations have
// refused the others, autograd/argument_types.h.)
template <class F>
MOCO_ALWAYS_INLINE void with_activation_type(DType dtype, const F& f) {
  switch (dtype) {
    case DType::f32:
      return f(float{});
    case DType::f64:
      return f(double{});
    case DType::bf16:
      return f(BFloat16{});
    case DType::i64:
    case DType::u8:
      __builtin_trap();
  }
}

// The same, where only f32 and f64 are possible.
template <class F>
MOCO_ALWAYS_INLINE void with_float_type(DType dtype, const F& f) {
  switch (dtype) {
    case DType::f32:
      return f(float{});
    case DType::f64:
      return f(double{});
    case DType::bf16:
    case DType::i64:
    case DType::u8:
      __builtin_trap();
  }
}

// The same, where only f32 and bf16 are possible: what f32 kernels store.
template <class F>
MOCO_ALWAYS_INLINE void with_stored_type(DType dtype, const F& f) {
  switch (dtype) {
    case DType::f32:
      return f(float{});
    case DType::bf16:
      return f(BFloat16{});
    case DType::f64:
    case DType::i64:
    case DType::u8:
      __builtin_trap();
  }
}

// What numbers stored as T are computed in: float for BFloat16, else T itself.
template <class T>
struct ArithmeticOf {
  using type = T;
};
template <>
struct ArithmeticOf<BFloat16> {
  using type = float;
};
template <class T>
using Arithmetic = typename ArithmeticOf<T>::type;

// The dtype of the parameters and statistics that go with activations of a dtype.
constexpr DType arithmetic_dtype(DType activations) {
  return activations == DType::bf16 ? DType::f32 : activations;
}

}  // namespace mocograd
