// CUDA C++ for g++: the keywords, and in namespace cuda_emulated the functions that kernels call by
// the names that CUDA gives them. Included by cuda/launch.h.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <type_traits>
#include <utility>

#include "cuda/emulator/builtins.h"
#include "cuda/emulator/scheduler.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

// One block runs at a time, so shared variables can be static. noinit moves them to a section of
// their own. The first thread of each block that comes by fills that section with poison.
#define __shared__                                                                                 \
  if (!::mocograd::emulator::static_shared_poisoned) ::mocograd::emulator::poison_static_shared(); \
  static __attribute__((noinit))

namespace mocograd {

namespace cuda_emulated {

using emulator::CallSite;

// ---- barriers --------------------------------------------------------------------------------------

inline void __syncthreads(CallSite site = CallSite::current()) {
  emulator::block_barrier("__syncthreads", site);
}
inline int __syncthreads_count(int predicate, CallSite site = CallSite::current()) {
  return static_cast<int>(emulator::block_barrier("__syncthreads_count", site, predicate != 0));
}
inline int __syncthreads_or(int predicate, CallSite site = CallSite::current()) {
  return emulator::block_barrier("__syncthreads_or", site, predicate != 0) > 0;
}
inline int __syncthreads_and(int predicate, CallSite site = CallSite::current()) {
  return emulator::block_barrier("__syncthreads_and", site, predicate == 0) == 0;
}
inline void __syncwarp(unsigned mask = 0xffffffff, CallSite site = CallSite::current()) {
  emulator::warp_meeting("__syncwarp", mask, site);
}

// ---- warps -----------------------------------------------------------------------------------------

template <class T>
struct ShuffleOffer {
  T value;
  unsigned source;  // lane
  T result;
};

template <class T>
T shuffle(const char* name, unsigned mask, T value, unsigned source, const CallSite& site) {
  static_assert(std::is_arithmetic_v<T> && sizeof(T) >= 4 && sizeof(T) <= 8);
  if (!(mask >> source & 1))
    emulator::fail(site, std::string(name) + " reads lane " + std::to_string(source) +
                             ", which its mask leaves out");
  ShuffleOffer<T> mine{value, source, T{}};
  emulator::warp_meeting(name, mask, site, &mine, [](void* const offers[32]) {
    for (int lane = 0; lane < 32; ++lane) {
      if (auto* offer = static_cast<ShuffleOffer<T>*>(offers[lane]))
        offer->result = static_cast<ShuffleOffer<T>*>(offers[offer->source])->value;
    }
  });
  return mine.result;
}

// The warp is cut into pieces of `width` lanes; a source outside of the own piece is the lane itself.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              CallSite site = CallSite::current()) {
  const unsigned lane = emulator::lane_number(), w = static_cast<unsigned>(width);
  return shuffle("__shfl_sync", mask, value, lane / w * w + static_cast<unsigned>(source) % w,
                 site);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32,
                  CallSite site = CallSite::current()) {
  const unsigned lane = emulator::lane_number(), w = static_cast<unsigned>(width);
  const unsigned source = lane ^ static_cast<unsigned>(lanes);
  return shuffle("__shfl_xor_sync", mask, value, source / w <= lane / w ? source : lane, site);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned lanes, int width = 32,
                   CallSite site = CallSite::current()) {
  const unsigned lane = emulator::lane_number(), w = static_cast<unsigned>(width);
  return shuffle("__shfl_down_sync", mask, value, lane % w + lanes < w ? lane + lanes : lane, site);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned lanes, int width = 32,
                 CallSite site = CallSite::current()) {
  const unsigned lane = emulator::lane_number(), w = static_cast<unsigned>(width);
  return shuffle("__shfl_up_sync", mask, value, lane % w >= lanes ? lane - lanes : lane, site);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, CallSite site = CallSite::current()) {
  return emulator::warp_ballot("__ballot_sync", mask, site, predicate != 0);
}
inline int __any_sync(unsigned mask, int predicate, CallSite site = CallSite::current()) {
  return emulator::warp_ballot("__any_sync", mask, site, predicate != 0) != 0;
}
inline int __all_sync(unsigned mask, int predicate, CallSite site = CallSite::current()) {
  return emulator::warp_ballot("__all_sync", mask, site, predicate != 0) == mask;
}

// ---- atomics: one thread runs at a time ------------------------------------------------------------

// *p becomes change(*p, x). Returns what it was.
template <class Change>
struct Atomic {
  Change change;
  template <class T>
  T operator()(T* p, std::type_identity_t<T> x) const {
    return std::exchange(*p, static_cast<T>(change(*p, x)));
  }
};
inline constexpr Atomic atomicAdd{[](auto old, auto x) { return old + x; }};
inline constexpr Atomic atomicMax{[](auto old, auto x) { return std::max(old, x); }};
inline constexpr Atomic atomicMin{[](auto old, auto x) { return std::min(old, x); }};
inline constexpr Atomic atomicExch{[](auto, auto x) { return x; }};
inline constexpr Atomic atomicOr{[](auto old, auto x) { return old | x; }};
inline constexpr Atomic atomicAnd{[](auto old, auto x) { return old & x; }};
inline constexpr Atomic atomicInc{[](auto old, auto last) { return old >= last ? 0 : old + 1; }};

template <class T>
T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> x) {
  return std::exchange(*p, *p == expected ? x : *p);
}

// ---- time, of which there is none ------------------------------------------------------------------

inline void __nanosleep(unsigned) {}

// ---- numbers ---------------------------------------------------------------------------------------

using std::max, std::min;
inline unsigned __float_as_uint(float x) {
  return std::bit_cast<unsigned>(x);
}
inline float __uint_as_float(unsigned bits) {
  return std::bit_cast<float>(bits);
}
// Four of the eight bytes of y and x, one for each hexadecimal digit of `which`.
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned which) {
  const uint64_t bytes = uint64_t{y} << 32 | x;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i)
    result |= static_cast<unsigned>(bytes >> (which >> 4 * i & 7) * 8 & 0xff) << 8 * i;
  return result;
}

}  // namespace cuda_emulated
}  // namespace mocograd
