// C = A·B on the tensor cores, fed by a pipeline: bf16, or f32 rounded to tf32; sums in fp32.
//   C_mn = Σ_k A_mk B_kn                                      m < M, n < N, k < K
//
// A block computes a tile of C, each of its four warps a part of it, whose sums stay in registers. K
// passes in steps of 128 bytes: while the warps multiply one step's tiles of A and B, the next two
// steps are on their way into shared memory (staged_tile.h). One barrier a step says both that the
// step's pieces have come and that everybody is done with the tiles that are overwritten next.
//
// A step is four parts, of 16 numbers of K in bf16, 8 in tf32. A warp loads the fragments of one part
// while the tensor cores work on the part before. A tile of 64×64 for a warp keeps shared memory from
// being what they wait for: 4 KiB of fragments for 64·64·16 products of bf16.
//
// Along K, ldmatrix delivers what mma takes in both types, because a fragment holds 32 bits of two bf16
// or of one tf32. Across K it transposes, which it can do for 16 bits only: tf32 is loaded number by
// number.
//
// Where B lies in memory as its tiles do (staged_operand.h), one thread has a step's tile copied in
// bulk.
//
// The sums leave by way of shared memory, so that whole pieces of C's rows are written, and where a
// batch norm follows, what it needs to know of a tile's rows (result_sums.h).
#pragma once

#include "cuda/bulk_copy.h"
#include "cuda/mma.h"
#include "cuda/result_sums.h"
#include "cuda/staged_tile.h"
#include "cuda/tile_loader.h"

namespace mocograd::MOCO_CUDA {

// A warp's part of the block's tile.
template <class T, class Tile, bool a_along_k, bool b_along_k>
class WarpProduct {
 public:
  __device__ WarpProduct()
      : m_(threadIdx.x / 32 / (Tile::kColumns / Tile::kWarpColumns) * Tile::kWarpRows),
        n_(threadIdx.x / 32 % (Tile::kColumns / Tile::kWarpColumns) * Tile::kWarpColumns),
        lane_(threadIdx.x % 32) {}

  // One step's tiles: begin is called as soon as they are there, end after the copies for a later step
  // have begun; the tiles are free after it.
  __device__ void begin(const unsigned char* /*a*/, const unsigned char* /*b*/) {}
  __device__ void end(const unsigned char* a, const unsigned char* b) {
    Fragments fragments[2];
    load(a, b, 0, fragments[0]);
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      if (part + 1 < kParts) load(a, b, part + 1, fragments[(part + 1) % 2]);
      multiply(fragments[part % 2]);
    }
  }

  // Calls f(m, n, sum_mn, sum_m,n+1) for each pair of this lane's, with m and n within the tile.
  template <class F>
  __device__ void for_each_pair(const F& f) const {
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i)
#pragma unroll
      for (int j = 0; j < kColumnTiles; ++j)
#pragma unroll
        for (int half = 0; half < 2; ++half)
          f(m_ + 16 * i + lane_ / 4 + 8 * half, n_ + 8 * j + lane_ % 4 * 2, sum_[i][j][2 * half],
            sum_[i][j][2 * half + 1]);
  }

 private:
  static constexpr int kRowTiles = Tile::kWarpRows / 16, kColumnTiles = Tile::kWarpColumns / 8;
  static constexpr int kPart = 2 * kPiece<T>, kParts = kStep<T> / kPart;
  static constexpr bool kByNumber = sizeof(T) == 4 && !a_along_k;
  static_assert(sizeof(T) == 2 || a_along_k == b_along_k, "k would be in two orders");
  struct Fragments {
    uint32_t a[kRowTiles][4], b[kColumnTiles][2];
  };

  __device__ void load(const unsigned char* a, const unsigned char* b, int part,
                       Fragments& fragments) const {
    if constexpr (kByNumber)
      load_numbers(a, b, part * kPart, fragments);
    else
      load_matrices(a, b, part * kPart, fragments);
  }

  // Each of an ldmatrix's four matrices is 8 rows (columns) of C by one piece of K. Of a tile of A:
  // the upper and the lower 8 rows with the part's first piece, then with its second. Of two tiles of
  // B: the first 8 columns with both pieces, then the next 8.
  __device__ void load_matrices(const unsigned char* a, const unsigned char* b, int k,
                                Fragments& fragments) const {
    const int line = lane_ % 8, first = lane_ / 8 % 2, second = lane_ / 16;
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
      const int m = m_ + 16 * i + 8 * first, piece = k + second * kPiece<T>;
      const uint32_t place = a_along_k ? place_in_tile<T, true>(m + line, piece)
                                       : place_in_tile<T, false>(m, piece + line);
      ldmatrix_x4<!a_along_k>(fragments.a[i], a + place);
      if constexpr (sizeof(T) == 4)
        for (uint32_t& bits : fragments.a[i]) bits = to_tf32(__uint_as_float(bits));
    }
#pragma unroll
    for (int j = 0; j < kColumnTiles; j += 2) {
      const int n = n_ + 8 * j + 8 * second, piece = k + first * kPiece<T>;
      const uint32_t place = b_along_k ? place_in_tile<T, true>(n + line, piece)
                                       : place_in_tile<T, false>(n, piece + line);
      uint32_t two[4];
      ldmatrix_x4<!b_along_k>(two, b + place);
      if constexpr (sizeof(T) == 4)
        for (uint32_t& bits : two) bits = to_tf32(__uint_as_float(bits));
      fragments.b[j][0] = two[0], fragments.b[j][1] = two[1];
      fragments.b[j + 1][0] = two[2], fragments.b[j + 1][1] = two[3];
    }
  }

  // Of tf32 across k. A part's k are taken in the order 0 2 4 6 1 3 5 7: the numbers that a warp loads
  // at once are then in different banks.
  __device__ void load_numbers(const unsigned char* a, const unsigned char* b, int k,
                               Fragments& fragments) const {
    const auto number = [&](const unsigned char* tile, int outer, int odd) {
      const uint32_t place = place_in_tile<T, false>(outer + lane_ / 4, k + lane_ % 4 * 2 + odd);
      return to_tf32(*reinterpret_cast<const float*>(tile + place));
    };
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i)
      for (int q = 0; q < 4; ++q) fragments.a[i][q] = number(a, m_ + 16 * i + 8 * (q % 2), q / 2);
#pragma unroll
    for (int j = 0; j < kColumnTiles; ++j)
      for (int q = 0; q < 2; ++q) fragments.b[j][q] = number(b, n_ + 8 * j, q);
  }

  __device__ void multiply(const Fragments& fragments) {
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i)
#pragma unroll
      for (int j = 0; j < kColumnTiles; ++j) {
        if constexpr (sizeof(T) == 2)
          mma_m16n8k16_bf16(sum_[i][j], fragments.a[i], fragments.b[j]);
        else
          mma_m16n8k8_tf32(sum_[i][j], fragments.a[i], fragments.b[j]);
      }
  }

  const int m_, n_, lane_;
  float sum_[kRowTiles][kColumnTiles][4] = {};
};

// How C is cut into tiles of a block, and of a warp. kStages: steps in shared memory at a time;
// kBlocks: how many blocks then fit into a multiprocessor of an H100.
template <int tile_rows, int tile_columns, int warp_rows, int warp_columns>
struct WarpTile {
  static constexpr int kRows = tile_rows, kColumns = tile_columns;
  static constexpr int kWarpRows = warp_rows, kWarpColumns = warp_columns;
  static constexpr int kThreads = 32 * (tile_rows / warp_rows) * (tile_columns / warp_columns);
  static constexpr int kBlocks = tile_columns > 64 ? 2 : 3;
  static constexpr bool kWgmma = false;
  static constexpr int kStages = 3, kStageBytes = tile_bytes(tile_rows + tile_columns);
  template <class T, bool a_along_k, bool b_along_k>
  using Product = WarpProduct<T, WarpTile, a_along_k, b_along_k>;
};
using WideTile = WarpTile<128, 128, 64, 64>;
using NarrowTile = WarpTile<128, 64, 64, 32>;  // for 64 columns and fewer
using SlimTile = WarpTile<128, 32, 32, 32>;    // for 32 columns and fewer of a B along k

// ---- how the sums leave ----------------------------------------------------------------------------

template <class T>
struct alignas(2 * sizeof(T)) Pair {
  T first, second;
};
__device__ inline Pair<float> pair_of(float x, float y, float /*as*/) {
  return {x, y};
}
__device__ inline Pair<BFloat16> pair_of(float x, float y, BFloat16 /*as*/) {
  return __builtin_bit_cast(Pair<BFloat16>, pack_bf16(x, y));
}

// A tile of C in shared memory. One piece more in a row than there need be, so that the pairs that a
// warp writes at once are in different banks.
template <class T, class Tile>
struct OutputTile {
  static constexpr int kPitch = Tile::kColumns + kPiece<T>;
  static constexpr int kBytes = Tile::kRows * kPitch * static_cast<int>(sizeof(T));
  T* element;

  __device__ void set(int m, int n, float x, float y) const {
    *reinterpret_cast<Pair<T>*>(element + m * kPitch + n) = pair_of(x, y, T(0));
  }

  // Copies what is inside of C to where output.row says. All threads of the block.
  template <class Output>
  __device__ void write(const Output& output, const ProductPlace& at,
                        const ProductShape& shape) const {
    constexpr int kPiecesInARow = Tile::kColumns / kPiece<T>;
    const bool whole_pieces = shape.N % kPiece<T> == 0 && begins_a_piece(output.row(0, 0));
    for (int i = threadIdx.x; i < Tile::kRows * kPiecesInARow; i += Tile::kThreads) {
      const int m = i / kPiecesInARow, n = i % kPiecesInARow * kPiece<T>;
      if (at.m0 + m >= shape.M || at.n0 + n >= shape.N) continue;
      const T* const from = element + m * kPitch + n;
      T* const to = output.row(at.split, at.m0 + m) + at.n0 + n;
      if (whole_pieces)
        *reinterpret_cast<Piece<T>*>(to) = *reinterpret_cast<const Piece<T>*>(from);
      else
        for (int j = 0; j < kPiece<T> && at.n0 + n + j < shape.N; ++j) to[j] = from[j];
    }
  }

  // The same of a whole chunk of pixels, the rows of C one after the other in memory; and its sums.
  template <class Wanted>
  __device__ void write_chunk_of(T* c, const ProductPlace& at, const ProductShape& shape,
                                 const Wanted& wanted) const {
    const auto piece_of = [&](int m, int piece) {
      return element + m * kPitch + piece * kPiece<T>;
    };
    const auto place_of = [&](int m) { return int64_t{at.m0 + m} * shape.N + at.n0; };
    const ChunkPlace place{at.m0 / Tile::kRows, shape.N, at.n0};
    write_chunk<Tile::kThreads, Tile::kRows, Tile::kColumns / kPiece<T>>(
        wanted, place, piece_of, place_of, c,
        reinterpret_cast<float*>(element + Tile::kRows * kPitch), [] { __syncthreads(); });
  }
  // Of the tile and of what the sums take.
  static constexpr int kBytesOfChunk =
      kBytes + Tile::kThreads / 32 * 2 * Tile::kColumns * static_cast<int>(sizeof(float));
};

// ---- the kernel ------------------------------------------------------------------------------------

// Whether an operand consists of tiles as they lie in shared memory, in the order of K. B only.
template <class Operand>
constexpr bool kConsistsOfTiles = requires(const Operand& b) {
  b.tile(0, 0);
};

// Copies such tiles, step by step, each at once by one thread.
template <class T, class Operand, int stages>
class BulkLoader {
 public:
  // All threads of the block. arrivals: in shared memory, one for each stage
  __device__ BulkLoader(const Operand& operand, int first, int k, BulkCopyBarrier* arrivals)
      : from_(operand.tile(first, k)), arrivals_(arrivals) {
    if (threadIdx.x == 0) begin_barriers(arrivals, stages);
    __syncthreads();
  }

  __device__ void begin_copy(unsigned char* tile) {
    constexpr int kSize = Operand::kTileSize;
    if (threadIdx.x == 0)
      bulk_copy(tile, from_, kSize * static_cast<int>(sizeof(T)), arrivals_[begun_ % stages]);
    from_ += kSize;
    ++begun_;
  }
  __device__ void wait(int step) const {
    wait_for_bulk_copy(arrivals_[step % stages], step / stages);
  }

 private:
  const T* from_;
  BulkCopyBarrier* const arrivals_;
  int begun_ = 0;
};

// One block's part of c = a·b.
// output.row(split, m): where C_m0 is written, or its part, as Output::Element. Where sums are
// wanted, the rows are all the pixels of an image, in order.
template <class T, class Tile, class A, class B, class Output, class Wanted>
__device__ void product_of_block(const A& a, const B& b, const Output& output,
                                 const ProductShape& shape, const ProductPlace& at,
                                 const Wanted& wanted) {
  constexpr int kStages = Tile::kStages;
  unsigned char* const stages = shared_memory<unsigned char>();
  const auto a_tile = [=](int step) { return stages + step % kStages * Tile::kStageBytes; };
  const auto b_tile = [=](int step) { return a_tile(step) + tile_bytes(Tile::kRows); };
  const int steps = (at.k_end - at.k_begin + kStep<T> - 1) / kStep<T>;
  PieceLoader<T, A, Tile::kRows, Tile::kThreads> a_loader(a, at.m0, shape.M, at.k_begin, at.k_end);
  auto b_loader = [&] {
    if constexpr (kConsistsOfTiles<B>)
      return BulkLoader<T, B, kStages>(
          b, at.n0, at.k_begin,
          reinterpret_cast<BulkCopyBarrier*>(stages + kStages * Tile::kStageBytes));
    else
      return PieceLoader<T, B, Tile::kColumns, Tile::kThreads>(b, at.n0, shape.N, at.k_begin,
                                                               at.k_end);
  }();
  const auto begin_copy = [&](int step) {
    if (step < steps) {
      a_loader.begin_copy(a_tile(step));
      b_loader.begin_copy(b_tile(step));
    }
    async_copy_commit();
  };
  for (int step = 0; step < kStages - 1; ++step) begin_copy(step);
  typename Tile::template Product<T, A::kInnerIsContiguous, B::kInnerIsContiguous> product;
  for (int step = 0; step < steps; ++step) {
    async_copy_wait<kStages - 2>();
    if constexpr (kConsistsOfTiles<B>) b_loader.wait(step);
    if constexpr (Tile::kWgmma) fence_before_wgmma();
    __syncthreads();  // the others' pieces are there too, and they are done with the step before
    product.begin(a_tile(step), b_tile(step));
    begin_copy(step + kStages - 1);
    product.end(a_tile(step), b_tile(step));
  }
  __syncthreads();  // no piece is read any more, or on its way: the result takes their place
  using Element = typename Output::Element;
  const OutputTile<Element, Tile> tile{reinterpret_cast<Element*>(stages)};
  static_assert(tile.kBytesOfChunk <= kStages * Tile::kStageBytes);
  product.for_each_pair([&](int m, int n, float x, float y) { tile.set(m, n, x, y); });
  __syncthreads();
  if constexpr (std::is_same_v<Wanted, NoSums>)
    tile.write(output, at, shape);
  else
    tile.write_chunk_of(output.row(0, 0), at, shape, wanted);
}

template <class T, class Tile, class A, class B, class Output, class Wanted>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks)
    pipelined_product_kernel(A a, B b, Output output, ProductShape shape, Wanted wanted) {
  product_of_block<T, Tile>(a, b, output, shape, ProductPlace(shape), wanted);
}

// Several products for one launch, their blocks one after the other.
template <class A, class B, class Output, int most>
struct ProductList {
  struct Product {
    A a;
    B b;
    Output output;
    ProductShape shape;
  };
  Product product[most];
  int64_t first_block[most + 1] = {};  // those of product i begin with this one
  int size = 0;

  void add(const Product& next) {
    product[size] = next;
    first_block[size + 1] = first_block[size] + next.shape.blocks();
    ++size;
  }
  int64_t blocks() const { return first_block[size]; }
};

template <class T, class Tile, class List>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks)
    pipelined_products_kernel(List list) {
  const int64_t block = blockIdx.x;
  int i = 0;
  while (block >= list.first_block[i + 1]) ++i;
  const auto& [a, b, output, shape] = list.product[i];
  product_of_block<T, Tile>(a, b, output, shape, ProductPlace(shape, block - list.first_block[i]),
                            NoSums{});
}

template <class Tile, class B>
Grid pipelined_grid(int64_t blocks) {
  Grid grid = blocks_of(Tile::kThreads, blocks);
  grid.dynamic_shared_bytes = Tile::kStages * Tile::kStageBytes;
  if (kConsistsOfTiles<B>) grid.dynamic_shared_bytes += Tile::kStages * sizeof(BulkCopyBarrier);
  return grid;
}

// c = a·b, written where output says.
template <class T, class Tile, class A, class B, class Output, class Wanted = NoSums>
void pipelined_product_to(const A& a, const B& b, const Output& output, const ProductShape& shape,
                          const Wanted& wanted = {}) {
  launch(pipelined_product_kernel<T, Tile, A, B, Output, Wanted>,
         pipelined_grid<Tile, B>(shape.blocks()), a, b, output, shape, wanted);
}

// The same of several, of which the GPU takes the first first. Requires: none shares K.
template <class T, class Tile, class A, class B, class Output, int most>
void pipelined_products_to(const ProductList<A, B, Output, most>& list) {
  launch(pipelined_products_kernel<T, Tile, ProductList<A, B, Output, most>>,
         pipelined_grid<Tile, B>(list.blocks()), list);
}

template <class T, class Tile>
ProductShape pipelined_shape(int64_t M, int64_t N, int64_t K) {
  return ProductShape(M, N, K, Tile::kRows, Tile::kColumns, kStep<T>);
}

}  // namespace mocograd::MOCO_CUDA
