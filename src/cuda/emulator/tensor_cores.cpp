#include "cuda/emulator/tensor_cores.h"

#include <bit>
#include <cstring>

#include "cuda/emulator/block.h"

namespace mocograd::emulator {
namespace {

float from_bf16(uint32_t bits) {
  return std::bit_cast<float>(bits << 16);
}

float from_tf32(uint32_t bits) {
  return std::bit_cast<float>(bits & ~0x1fffu);  // the lowest 13 bits of fp32 are not looked at
}

// ---- mma.sync --------------------------------------------------------------------------------------

struct MmaOffer {
  float* d;
  const uint32_t *a, *b;
};

const MmaOffer& mma_offer(void* const offers[kLanes], int lane) {
  return *static_cast<const MmaOffer*>(offers[lane]);
}

// a: [16, K], b: [K, 8], d: [16, 8]. Element i of lane l's part of d is
//   d[l / 4 + 8 (i / 2)][2 (l % 4) + i % 2]
template <int K>
void multiply(const float (&a)[16][K], const float (&b)[K][8], void* const offers[kLanes]) {
  for (int row = 0; row < 16; ++row) {
    float sum[8];
    const auto part_of = [&](int column) -> float& {
      return mma_offer(offers, row % 8 * 4 + column / 2).d[row / 8 * 2 + column % 2];
    };
    for (int column = 0; column < 8; ++column) sum[column] = part_of(column);
    for (int k = 0; k < K; ++k)
      for (int column = 0; column < 8; ++column) sum[column] += a[row][k] * b[k][column];
    for (int column = 0; column < 8; ++column) part_of(column) = sum[column];
  }
}

void perform_bf16(void* const offers[kLanes]) {
  float a[16][16], b[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const MmaOffer& offer = mma_offer(offers, lane);
    const int row = lane / 4, pair = lane % 4 * 2;
    for (int half = 0; half < 2; ++half) {
      for (int i = 0; i < 4; ++i)
        a[row + 8 * (i % 2)][pair + half + 8 * (i / 2)] = from_bf16(offer.a[i] >> 16 * half);
      for (int i = 0; i < 2; ++i) b[pair + half + 8 * i][row] = from_bf16(offer.b[i] >> 16 * half);
    }
  }
  multiply(a, b, offers);
}

void perform_tf32(void* const offers[kLanes]) {
  float a[16][8], b[8][8];
  for (int lane = 0; lane < 32; ++lane) {
    const MmaOffer& offer = mma_offer(offers, lane);
    const int row = lane / 4, k = lane % 4;
    for (int i = 0; i < 4; ++i) a[row + 8 * (i % 2)][k + 4 * (i / 2)] = from_tf32(offer.a[i]);
    for (int i = 0; i < 2; ++i) b[k + 4 * i][row] = from_tf32(offer.b[i]);
  }
  multiply(a, b, offers);
}

// ---- ldmatrix --------------------------------------------------------------------------------------

struct LdmatrixOffer {
  const void* row;
  uint32_t* fragments;
  bool transposed;
};

// Lanes 8m to 8m+7 name the rows of matrix m, 8 x 8 elements of 16 bits. Lane l gets, in
// fragments[m], the elements 2 (l % 4) and one more of row l / 4, transposed: of column l / 4.
void perform_ldmatrix(void* const offers[kLanes]) {
  for (int m = 0; m < 4; ++m) {
    uint16_t matrix[8][8];
    for (int row = 0; row < 8; ++row)
      std::memcpy(matrix[row], static_cast<const LdmatrixOffer*>(offers[8 * m + row])->row, 16);
    for (int lane = 0; lane < 32; ++lane) {
      const auto& offer = *static_cast<const LdmatrixOffer*>(offers[lane]);
      const int i = lane / 4, j = lane % 4 * 2;
      const uint32_t low = offer.transposed ? matrix[j][i] : matrix[i][j];
      const uint32_t high = offer.transposed ? matrix[j + 1][i] : matrix[i][j + 1];
      offer.fragments[m] = low | high << 16;
    }
  }
}

// ---- wgmma -----------------------------------------------------------------------------------------

// Element (row, k) of an operand, bf16, from its descriptor (cuda/wgmma.h).
float operand_element(const AsyncProducts::Operand& operand, int row, int k, const CallSite& site) {
  const auto field = [&](int shift) { return (operand.descriptor >> shift & 0x3fff) << 4; };
  const uint64_t start = field(0), leading = field(16), stride = field(32);
  const auto swizzle = static_cast<unsigned>(operand.descriptor >> 62);
  const auto r = static_cast<unsigned>(row), column = static_cast<unsigned>(k);
  const unsigned line_bytes = 256u >> swizzle;  // 128, 64, 32
  uint64_t offset = start;
  if (!operand.along_k) {
    if (swizzle != 1) fail(site, "wgmma across k without the swizzle of 128 bytes");
    offset += r / 64 * leading + column / 8 * stride + column % 8 * line_bytes + r % 64 * 2;
  } else if (swizzle == 0) {
    offset += r / 8 * stride + column / 8 * leading + r % 8 * 16 + column % 8 * 2;
  } else {
    offset += r / 8 * stride + r % 8 * line_bytes + column * 2;
  }
  if (swizzle != 0) offset ^= (offset >> 7 & (line_bytes / 16 - 1)) << 4;
  if (offset + 2 > block.dynamic_shared_bytes)
    fail(site, "wgmma: an operand reaches beyond dynamic shared memory, to byte " +
                   std::to_string(offset));
  uint16_t bits;
  std::memcpy(&bits, block.dynamic_shared + offset, sizeof bits);
  return from_bf16(bits);
}

}  // namespace

void mma_m16n8k16_bf16(float* d, const uint32_t* a, const uint32_t* b, const CallSite& site) {
  MmaOffer offer{d, a, b};
  warp_meeting("mma_m16n8k16_bf16", ~0u, site, &offer, perform_bf16);
}

void mma_m16n8k8_tf32(float* d, const uint32_t* a, const uint32_t* b, const CallSite& site) {
  MmaOffer offer{d, a, b};
  warp_meeting("mma_m16n8k8_tf32", ~0u, site, &offer, perform_tf32);
}

void ldmatrix_x4(uint32_t* fragments, const void* row, bool transposed, const CallSite& site) {
  if (!is_shared(row, 16)) fail(site, "ldmatrix of a row that is not in shared memory");
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0)
    fail(site, "ldmatrix of a row whose address is no multiple of 16");
  LdmatrixOffer offer{row, fragments, transposed};
  warp_meeting("ldmatrix", ~0u, site, &offer, perform_ldmatrix);
}

// A warpgroup is four warps; warp w has rows 16w to 16w+15 of d: [64, n]. Element i of lane l is
//   d[16w + l / 4 + 8 (i / 2 % 2)][8 (i / 4) + 2 (l % 4) + i % 2]
void AsyncProducts::add_product(const Product& product, std::vector<float>& sum) {
  constexpr int K = 16;
  const int thread = static_cast<int>(thread_number() % 128), lane = thread % 32;
  for (int half = 0; half < 2; ++half) {
    float a[K];
    const int row = thread / 32 * 16 + lane / 4 + 8 * half;
    for (int k = 0; k < K; ++k) a[k] = operand_element(product.a, row, k, product.site);
    for (int i = 0; i < product.n / 2; ++i) {
      if (i / 2 % 2 != half) continue;
      const int column = 8 * (i / 4) + 2 * (lane % 4) + i % 2;
      for (int k = 0; k < K; ++k)
        sum[static_cast<size_t>(i)] += a[k] * operand_element(product.b, column, k, product.site);
    }
  }
}

}  // namespace mocograd::emulator
