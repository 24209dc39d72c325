// Matrix products on tensor cores, as an example of a complete kernel file, and what else the
// emulator's tests run. bf16 numbers are their 16 bits; all pointers are to memory of the device.
#pragma once

#include <cstdint>

#include "cuda/launch.h"

namespace mocograd::MOCO_CUDA {

// c = a · b                       a: [M, K], b: [K, N], bf16; c: [M, N], f32
// Requires: K and N are multiples of 8.
void mma_gemm(const uint16_t* a, const uint16_t* b, float* c, int M, int N, int K);

// c = a · b with one warp         a: [16, 8], b: [8, 8], c: [16, 8], f32 rounded to tf32
void tf32_product(const float* a, const float* b, float* c);

// c = a · bᵀ with one warpgroup   a: [64, K], b: [n, K], bf16; c: [64, n], f32
// Requires: n is 64, 128 or 256. row_bytes is 0 (no swizzle), 32, 64 or 128; K = row_bytes / 2, at
// least 16.
void wgmma_product(const uint16_t* a, const uint16_t* b, float* c, int n, int row_bytes);

// The same of operands in images of 64 columns, swizzled by 128 bytes, in places that overlap or have
// gaps. Along k, row r of the operand is row first + r / 8 · stride + r % 8 of its image. Across k, k
// is row first + k / 8 · stride + k % 8, and of the rows from 64 on `panel` rows further.
struct WgmmaPlace {
  bool along_k;
  int first, stride, panel;
};
constexpr int kWgmmaImageRows = 192;
void wgmma_product_of_images(const uint16_t* a, WgmmaPlace a_place, const uint16_t* b,
                             WgmmaPlace b_place, float* c, int n);

// y = x, each row backwards, by copies in bulk, one row ahead.     x, y: [rows, 64]
void reverse_rows(const float* x, float* y, int rows);

// sums[2t] = Σ x, sums[2t + 1] = 2 · Σ x, for every thread t of one block: block_sum twice in a row.
void sum_twice(const float* x, float* sums, unsigned threads);

}  // namespace mocograd::MOCO_CUDA
