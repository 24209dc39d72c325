// What the matrix instructions do.
#include <bit>
#include <cstring>

#include "cuda/emulator/block.h"
#include "cuda/emulator/instructions.h"

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

// d += a · b. a: [16, K], b: [K, 8], d: [16, 8]; cuda/mma.h says which lane has what of them. A
// register holds kPack elements of a and b: two of bf16, or one of tf32.
template <int kPack, float element(uint32_t bits)>
void perform_mma(void* const offers[kLanes]) {
  constexpr int K = 8 * kPack;
  float a[16][K], b[K][8];
  for (int lane = 0; lane < 32; ++lane) {
    const MmaOffer& offer = mma_offer(offers, lane);
    const int row = lane / 4;
    for (int half = 0; half < kPack; ++half) {
      const int k = lane % 4 * kPack + half;
      for (int i = 0; i < 4; ++i)
        a[row + 8 * (i % 2)][k + K / 2 * (i / 2)] = element(offer.a[i] >> 16 * half);
      for (int i = 0; i < 2; ++i) b[k + K / 2 * i][row] = element(offer.b[i] >> 16 * half);
    }
  }
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
float operand_element(const WgmmaOperand& operand, int row, int k, const CallSite& site) {
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
  if (offset + 2 > block.dynamic_shared.size())
    fail(site, "wgmma: an operand reaches beyond dynamic shared memory, to byte " +
                   std::to_string(offset));
  uint16_t bits;
  std::memcpy(&bits, &block.dynamic_shared[offset], sizeof bits);
  return from_bf16(bits);
}

}  // namespace

void mma_m16n8k16_bf16(float* d, const uint32_t* a, const uint32_t* b, const CallSite& site) {
  MmaOffer offer{d, a, b};
  warp_meeting("mma_m16n8k16_bf16", ~0u, site, &offer, perform_mma<2, from_bf16>);
}

void mma_m16n8k8_tf32(float* d, const uint32_t* a, const uint32_t* b, const CallSite& site) {
  MmaOffer offer{d, a, b};
  warp_meeting("mma_m16n8k8_tf32", ~0u, site, &offer, perform_mma<1, from_tf32>);
}

void ldmatrix_x4(uint32_t* fragments, const void* row, bool transposed, const CallSite& site) {
  if (!is_shared(row, 16)) fail(site, "ldmatrix of a row that is not in shared memory");
  if (!is_multiple(row, 16)) fail(site, "ldmatrix of a row whose address is no multiple of 16");
  LdmatrixOffer offer{row, fragments, transposed};
  warp_meeting("ldmatrix", ~0u, site, &offer, perform_ldmatrix);
}

void Product::begin() const {
  Accumulator& sums = block.accumulators[d];
  if (sums.products++ > 0) return;
  sums.values.assign(d, d + n / 2);
  std::memset(d, kPoison, sums.values.size() * sizeof(float));
}

// A warpgroup is four warps; warp w has rows 16w to 16w+15 of d: [64, n]. Element i of lane l is
//   d[16w + l / 4 + 8 (i / 2 % 2)][8 (i / 4) + 2 (l % 4) + i % 2]
void Product::carry_out() const {
  constexpr int K = 16;
  Accumulator& sums = block.accumulators[d];
  const int thread = static_cast<int>(block.current->number % 128), lane = thread % 32;
  for (int half = 0; half < 2; ++half) {
    float a_row[K];
    const int row = thread / 32 * 16 + lane / 4 + 8 * half;
    for (int k = 0; k < K; ++k) a_row[k] = operand_element(a, row, k, site);
    for (int i = 0; i < n / 2; ++i) {
      if (i / 2 % 2 != half) continue;
      const int column = 8 * (i / 4) + 2 * (lane % 4) + i % 2;
      for (int k = 0; k < K; ++k)
        sums.values[static_cast<size_t>(i)] += a_row[k] * operand_element(b, column, k, site);
    }
  }
  if (--sums.products > 0) return;
  std::memcpy(d, sums.values.data(), sums.values.size() * sizeof(float));
  block.accumulators.erase(d);
}

void wgmma(float* d, int n, WgmmaOperand a, WgmmaOperand b, const CallSite& site) {
  warp_meeting("wgmma", ~0u, site);
  if (!block.current->fenced) fail(site, "wgmma without a wgmma_fence since the last wait");
  if (block.current->copies_hidden)
    fail(site, "wgmma of what was copied without a fence_before_wgmma between wait and barrier");
  block.current->products.begin({d, n, a, b, site}, site);
}

void fence_before_wgmma() {
  block.current->hides_copies = false;
}

void wgmma_fence() {
  block.current->fenced = true;
}

void wgmma_commit() {
  block.current->products.commit();
}

void wgmma_wait(int64_t groups_left) {
  block.current->fenced = false;
  block.current->products.wait(groups_left);
}

}  // namespace mocograd::emulator
