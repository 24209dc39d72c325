#include "emulator_kernels.h"

#include "cuda/async_copy.h"
#include "cuda/bulk_copy.h"
#include "cuda/mma.h"
#include "cuda/reduce.h"
#include "cuda/wgmma.h"

namespace mocograd::MOCO_CUDA {
namespace {

// ---- mma.sync: a block makes a tile [BM, BN] of c, four warps a quarter [32, 32] each ----------------

constexpr int BM = 64, BN = 64, BK = 32;
constexpr int kThreads = 128;
constexpr int kPiece = 8;  // elements of one asynchronous copy

// One step's operands. Rows are 16 bytes longer than they need be, so that the eight rows of an
// ldmatrix lie in different banks.
struct Tiles {
  uint16_t a[BM][BK + kPiece];
  uint16_t b[BK][BN + kPiece];
};

// Begins to copy a's columns and b's rows k0 to k0 + BK - 1; beyond the matrices there are zeros.
__device__ void begin_copy(Tiles& tiles, const uint16_t* a, const uint16_t* b, int M, int N, int K,
                           int k0) {
  const int m0 = static_cast<int>(blockIdx.y) * BM, n0 = static_cast<int>(blockIdx.x) * BN;
  for (int i = static_cast<int>(threadIdx.x); i < BM * BK / kPiece; i += kThreads) {
    const int row = i / (BK / kPiece), column = i % (BK / kPiece) * kPiece;
    const bool valid = m0 + row < M && k0 + column < K;
    async_copy<16>(&tiles.a[row][column], valid ? &a[(m0 + row) * K + k0 + column] : a, valid);
  }
  for (int i = static_cast<int>(threadIdx.x); i < BK * BN / kPiece; i += kThreads) {
    const int row = i / (BN / kPiece), column = i % (BN / kPiece) * kPiece;
    const bool valid = k0 + row < K && n0 + column < N;
    async_copy<16>(&tiles.b[row][column], valid ? &b[(k0 + row) * N + n0 + column] : b, valid);
  }
}

// sums += the warp's quarter of the product of the two tiles
__device__ void multiply(const Tiles& tiles, int row0, int column0, float (&sums)[2][4][4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int k = 0; k < BK; k += 16) {
    uint32_t a[2][4], b[4][2];
    for (int i = 0; i < 2; ++i)
      ldmatrix_x4(a[i], &tiles.a[row0 + 16 * i + lane % 16][k + lane / 16 * 8]);
    for (int j = 0; j < 4; j += 2) {
      uint32_t pair[4];
      ldmatrix_x4<true>(pair, &tiles.b[k + lane % 16][column0 + 8 * j + lane / 16 * 8]);
      b[j][0] = pair[0], b[j][1] = pair[1], b[j + 1][0] = pair[2], b[j + 1][1] = pair[3];
    }
    for (int i = 0; i < 2; ++i)
      for (int j = 0; j < 4; ++j) mma_m16n8k16_bf16(sums[i][j], a[i], b[j]);
  }
}

__global__ void __launch_bounds__(kThreads)
    mma_gemm_kernel(const uint16_t* a, const uint16_t* b, float* c, int M, int N, int K) {
  __shared__ __align__(16) Tiles tiles[2];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int row0 = warp / 2 * 32, column0 = warp % 2 * 32;
  float sums[2][4][4] = {};

  begin_copy(tiles[0], a, b, M, N, K, 0);
  async_copy_commit();
  for (int k0 = 0, step = 0; k0 < K; k0 += BK, ++step) {
    if (k0 + BK < K) begin_copy(tiles[(step + 1) % 2], a, b, M, N, K, k0 + BK);
    async_copy_commit();
    async_copy_wait<1>();
    __syncthreads();  // the others' copies are there too
    multiply(tiles[step % 2], row0, column0, sums);
    __syncthreads();  // all have read what the next step overwrites
  }

  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 4; ++j) {
      for (int part = 0; part < 4; ++part) {
        const int m = static_cast<int>(blockIdx.y) * BM + row0 + 16 * i + lane / 4 + 8 * (part / 2);
        const int n = static_cast<int>(blockIdx.x) * BN + column0 + 8 * j + lane % 4 * 2 + part % 2;
        if (m < M && n < N) c[m * N + n] = sums[i][j][part];
      }
    }
  }
}

__global__ void tf32_product_kernel(const float* a, const float* b, float* c) {
  const unsigned g = threadIdx.x / 4, t = threadIdx.x % 4;
  const uint32_t a_part[4] = {to_tf32(a[g * 8 + t]), to_tf32(a[(g + 8) * 8 + t]),
                              to_tf32(a[g * 8 + t + 4]), to_tf32(a[(g + 8) * 8 + t + 4])};
  const uint32_t b_part[2] = {to_tf32(b[t * 8 + g]), to_tf32(b[(t + 4) * 8 + g])};
  float sums[4] = {};
  mma_m16n8k8_tf32(sums, a_part, b_part);
  for (unsigned i = 0; i < 4; ++i) c[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2] = sums[i];
}

// ---- wgmma -----------------------------------------------------------------------------------------

template <Swizzle kSwizzle>
constexpr int kColumns = kSwizzle == Swizzle::none ? 16 : 128 >> static_cast<int>(kSwizzle);

// Where element (row, k) of an operand of `rows` rows is, in bytes.
template <Swizzle kSwizzle>
__device__ uint32_t operand_offset(int rows, int row, int k) {
  if (kSwizzle == Swizzle::none) return k / 8 * rows * 16 + row * 16 + k % 8 * 2;
  return swizzled<kSwizzle>((row * kColumns<kSwizzle> + k) * 2);
}

template <Swizzle kSwizzle>
__device__ void load_operand(unsigned char* operand, const uint16_t* x, int rows) {
  for (int i = static_cast<int>(threadIdx.x); i < rows * kColumns<kSwizzle>; i += kThreads) {
    const uint32_t offset =
        operand_offset<kSwizzle>(rows, i / kColumns<kSwizzle>, i % kColumns<kSwizzle>);
    *reinterpret_cast<uint16_t*>(operand + offset) = x[i];
  }
}

template <Swizzle kSwizzle>
__device__ uint64_t operand_at(const unsigned char* operand, int rows, int k) {
  const uint32_t brick = kSwizzle == Swizzle::none ? 128 : 16 * kColumns<kSwizzle>;  // 8 rows
  return wgmma_operand(operand + k * 2, kSwizzle, brick, rows * 16);
}

template <bool a_along_k, bool b_along_k>
__device__ void multiply(float (&sums)[32], uint64_t a, uint64_t b) {
  wgmma_m64n64k16_bf16<a_along_k, b_along_k>(sums, a, b);
}
template <bool a_along_k, bool b_along_k>
__device__ void multiply(float (&sums)[64], uint64_t a, uint64_t b) {
  wgmma_m64n128k16_bf16<a_along_k, b_along_k>(sums, a, b);
}
template <bool a_along_k, bool b_along_k>
__device__ void multiply(float (&sums)[128], uint64_t a, uint64_t b) {
  wgmma_m64n256k16_bf16<a_along_k, b_along_k>(sums, a, b);
}

template <int kCount>
__device__ void write(const float (&sums)[kCount], float* c) {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  for (int i = 0; i < kCount; ++i) {
    const int m = 16 * warp + lane / 4 + 8 * (i / 2 % 2), n = 8 * (i / 4) + lane % 4 * 2 + i % 2;
    c[m * 2 * kCount + n] = sums[i];
  }
}

template <int kN, Swizzle kSwizzle>
__global__ void __launch_bounds__(kThreads)
    wgmma_kernel(const uint16_t* a, const uint16_t* b, float* c) {
  constexpr int M = 64, K = kColumns<kSwizzle>;
  unsigned char* a_tile = shared_memory<unsigned char>();
  unsigned char* b_tile = a_tile + M * K * 2;
  load_operand<kSwizzle>(a_tile, a, M);
  load_operand<kSwizzle>(b_tile, b, kN);
  fence_before_wgmma();
  __syncthreads();

  float sums[kN / 2] = {};
  wgmma_fence();
  for (int k = 0; k < K; k += 16) {
    const uint64_t a_part = operand_at<kSwizzle>(a_tile, M, k);
    const uint64_t b_part = operand_at<kSwizzle>(b_tile, kN, k);
    multiply<true, true>(sums, a_part, b_part);
  }
  wgmma_commit();
  wgmma_wait<0>();
  write(sums, c);
}

template <Swizzle kSwizzle>
void launch_wgmma(const uint16_t* a, const uint16_t* b, float* c, int n) {
  const size_t bytes = static_cast<size_t>(64 + n) * kColumns<kSwizzle> * 2;
  const Grid grid{1, kThreads, bytes};
  launch(n == 64    ? wgmma_kernel<64, kSwizzle>
         : n == 128 ? wgmma_kernel<128, kSwizzle>
                    : wgmma_kernel<256, kSwizzle>,
         grid, a, b, c);
}

template <int kN, bool a_along_k, bool b_along_k>
__global__ void __launch_bounds__(kThreads)
    wgmma_of_images_kernel(const uint16_t* a, WgmmaPlace a_place, const uint16_t* b,
                           WgmmaPlace b_place, float* c) {
  unsigned char* a_image = shared_memory<unsigned char>();
  unsigned char* b_image = a_image + kWgmmaImageRows * 128;
  load_operand<Swizzle::bytes128>(a_image, a, kWgmmaImageRows);
  load_operand<Swizzle::bytes128>(b_image, b, kWgmmaImageRows);
  fence_before_wgmma();
  __syncthreads();
  const auto operand = [](const unsigned char* image, const WgmmaPlace& place) {
    return wgmma_operand(image + place.first * 128, Swizzle::bytes128, place.stride * 128,
                         place.panel * 128);
  };
  float sums[kN / 2] = {};
  wgmma_fence();
  multiply<a_along_k, b_along_k>(sums, operand(a_image, a_place), operand(b_image, b_place));
  wgmma_commit();
  wgmma_wait<0>();
  write(sums, c);
}

template <int kN>
void launch_of_images(const uint16_t* a, WgmmaPlace a_place, const uint16_t* b, WgmmaPlace b_place,
                      float* c) {
  const Grid grid{1, kThreads, size_t{2} * kWgmmaImageRows * 128};
  const auto kernel = a_place.along_k
                          ? (b_place.along_k ? wgmma_of_images_kernel<kN, true, true>
                                             : wgmma_of_images_kernel<kN, true, false>)
                          : (b_place.along_k ? wgmma_of_images_kernel<kN, false, true>
                                             : wgmma_of_images_kernel<kN, false, false>);
  launch(kernel, grid, a, a_place, b, b_place, c);
}

__global__ void reverse_rows_kernel(const float* x, float* y, int rows) {
  __shared__ __align__(16) float row[2][64];
  __shared__ BulkCopyBarrier arrivals[2];
  const auto begin_copy = [&](int i) {
    if (threadIdx.x == 0 && i < rows)
      bulk_copy(row[i % 2], x + 64 * i, sizeof row[0], arrivals[i % 2]);
  };
  if (threadIdx.x == 0) begin_barriers(arrivals, 2);
  begin_copy(0);
  __syncthreads();  // the barriers are there
  for (int i = 0; i < rows; ++i) {
    begin_copy(i + 1);
    wait_for_bulk_copy(arrivals[i % 2], i / 2);
    y[64 * i + static_cast<int>(threadIdx.x)] = row[i % 2][63 - threadIdx.x];
    __syncthreads();  // all have read the row
  }
}

__global__ void sum_twice_kernel(const float* x, float* sums) {
  const float mine = x[threadIdx.x];
  const float first = block_sum(mine), second = block_sum(2 * mine);
  sums[2 * threadIdx.x] = first;
  sums[2 * threadIdx.x + 1] = second;
}

}  // namespace

void mma_gemm(const uint16_t* a, const uint16_t* b, float* c, int M, int N, int K) {
  const Grid grid{dim3((N + BN - 1) / BN, (M + BM - 1) / BM), kThreads};
  launch(mma_gemm_kernel, grid, a, b, c, M, N, K);
}

void tf32_product(const float* a, const float* b, float* c) {
  launch(tf32_product_kernel, Grid{1, 32}, a, b, c);
}

void wgmma_product_of_images(const uint16_t* a, WgmmaPlace a_place, const uint16_t* b,
                             WgmmaPlace b_place, float* c, int n) {
  (n == 64 ? launch_of_images<64> : launch_of_images<128>)(a, a_place, b, b_place, c);
}

void wgmma_product(const uint16_t* a, const uint16_t* b, float* c, int n, int row_bytes) {
  switch (row_bytes) {
    case 0:
      return launch_wgmma<Swizzle::none>(a, b, c, n);
    case 32:
      return launch_wgmma<Swizzle::bytes32>(a, b, c, n);
    case 64:
      return launch_wgmma<Swizzle::bytes64>(a, b, c, n);
    case 128:
      return launch_wgmma<Swizzle::bytes128>(a, b, c, n);
  }
}

void reverse_rows(const float* x, float* y, int rows) {
  launch(reverse_rows_kernel, Grid{1, 64}, x, y, rows);
}

void sum_twice(const float* x, float* sums, unsigned threads) {
  launch(sum_twice_kernel, Grid{1, threads}, x, sums);
}

}  // namespace mocograd::MOCO_CUDA
