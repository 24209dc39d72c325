// How blocks cover a matrix [rows, C] when something is kept, or summed, for each column.
//
// A thread takes V neighbouring columns (a vector, vectors.h), and kRowsOfThread rows of them. The 256
// threads of a block stand in `width` vectors, a power of two up to 32, so that neighbouring threads
// read neighbouring memory; the 256/width threads of one vector take every 256/width-th row of the
// block's chunk. The matrix may consist of several groups of rows, none of whose chunks reaches into
// the next.
//
// Sums over a group are made in two steps, in an order that depends on the matrix's shape alone: each
// chunk leaves its own, and blocks that stand as ChunkColumn says add those up.
#pragma once

#include "cuda/vectors.h"
#include "cuda/warp.h"

namespace mocograd::MOCO_CUDA {

constexpr int kLogThreads = 8;
static_assert(1 << kLogThreads == kThreads);
constexpr int kRowsOfThread = 8;
constexpr int kMostVectors = 32;      // side by side in a block
constexpr int kCombinedColumns = 8;   // of a block that combines chunks: in f32 a sector of memory
constexpr int kMostCombining = 1024;  // threads of such a block
constexpr int kChunksAtOnce = 4;      // that one of them reads before it uses the first

// How the rows are cut into chunks.
struct Chunks {
  int64_t C;
  int64_t rows;  // of a group
  int groups, chunk_rows;
  int chunks;  // of a group; its last may have fewer than chunk_rows rows

  __host__ __device__ int rows_of(int64_t chunk) const {
    const int64_t left = rows - chunk * chunk_rows;
    return static_cast<int>(left < chunk_rows ? left : chunk_rows);
  }
  __host__ __device__ int combined_blocks() const {
    return static_cast<int>(ceil_div(C, kCombinedColumns));
  }
  // As many threads as read all chunks at once, in whole warps.
  Grid grid_of_combining() const {
    int threads = 32;
    while (threads < kMostCombining && threads / kCombinedColumns * kChunksAtOnce < chunks)
      threads *= 2;
    return blocks_of(threads, int64_t{groups} * combined_blocks());
  }
};

template <int V>
struct ColumnPartition : Chunks {
  int width, log_width, column_blocks;

  ColumnPartition(int64_t columns, int64_t total_rows, int64_t number_of_groups) {
    C = columns;
    groups = static_cast<int>(number_of_groups);
    rows = total_rows / number_of_groups;
    log_width = 0;
    while (1 << log_width < kMostVectors && V << log_width < C) ++log_width;
    width = 1 << log_width;
    chunk_rows = kRowsOfThread * (kThreads >> log_width);
    chunks = static_cast<int>(ceil_div(rows, chunk_rows));
    column_blocks = static_cast<int>(ceil_div(C, V * width));
  }

  Grid grid() const { return blocks_of(kThreads, int64_t{groups} * chunks * column_blocks); }
};

// What one thread of such a block has to do.
template <int V>
struct ColumnPlace {
  int group, chunk;
  int64_t column;       // the first of its V
  int64_t origin;       // element of the chunk's first row in column 0
  int64_t first, step;  // element of its own first row in `column`, and from there to its next row
  int rows;             // its rows, at most kRowsOfThread; none beyond the last column
  int64_t own_column;   // of which it has the sum (column_sums) or works something out; -1: of none

  // block: blockIdx.x, or another order of the same numbers.
  __device__ ColumnPlace(const ColumnPartition<V>& part, unsigned block) {
    const int thread = threadIdx.x, columns = V << part.log_width;
    const unsigned of_all = block / part.column_blocks;
    chunk = of_all % part.chunks;
    group = of_all / part.chunks;
    const int64_t first_column = int64_t{block % part.column_blocks} * columns;
    column = first_column + (thread & (part.width - 1)) * V;
    const int row = thread >> part.log_width, row_step = kThreads >> part.log_width;
    origin = (group * part.rows + int64_t{chunk} * part.chunk_rows) * part.C;
    first = origin + row * part.C + column;
    step = row_step * part.C;
    const int left = part.rows_of(chunk) - row;
    rows =
        column < part.C && left > 0 ? (left + row_step - 1) >> (kLogThreads - part.log_width) : 0;
    own_column = thread < columns && first_column + thread < part.C ? first_column + thread : -1;
  }

  // Of its row k the V numbers.
  template <class T>
  __device__ T* row(int k, T* x) const {
    return x + first + k * step;
  }
};

// N of the thread's rows, from `begin` on; beyond its last that one again, so that no load depends on a
// condition. Requires: begin < at.rows.
template <int V, class T, int N>
__device__ void load_rows(const ColumnPlace<V>& at, int begin, const T* x, Vector<T, V> (&to)[N]) {
#pragma unroll
  for (int k = 0; k < N; ++k)
    to[k] = load<V>(at.row(begin + k < at.rows ? begin + k : at.rows - 1, x));
}

// Thread t gets the sum over the block of its column t, x[t % V] of the threads in vector t / V; for
// t >= V·width it means nothing. Every thread of the block must call.
template <int V, class A>
__device__ A column_sums(Vector<A, V> x, int width) {
  constexpr int kWarps = kThreads / 32;
  __shared__ Vector<A, V> of_warp[kWarps][kMostVectors];
  const int thread = threadIdx.x, lane = thread % 32;
  for (int lanes = 16; lanes >= width; lanes /= 2) {
#pragma unroll
    for (int v = 0; v < V; ++v) x[v] += __shfl_xor_sync(kAllLanes, x[v], lanes);
  }
  __syncthreads();  // the sums of a call before this one have been read
  if (lane < width) of_warp[thread / 32][lane] = x;
  __syncthreads();
  A sum = 0;
  if (thread < V * width) {
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) sum += of_warp[warp][thread / V][thread % V];
  }
  return sum;
}

// A thread of a block that combines what the chunks of a group have left for kCombinedColumns columns:
// the threads of one column take every step-th chunk.
struct ChunkColumn {
  int group;
  int64_t column;
  int chunk, step, chunks;  // its first chunk, and where they end; none beyond the last column
  bool speaks;              // sums() are its column's, and it writes what comes of them

  __device__ explicit ChunkColumn(const Chunks& part) {
    const int thread = threadIdx.x, blocks = part.combined_blocks();
    group = static_cast<int>(blockIdx.x) / blocks;
    column = int64_t{static_cast<int>(blockIdx.x) % blocks} * kCombinedColumns +
             thread % kCombinedColumns;
    chunk = thread / kCombinedColumns;
    step = static_cast<int>(blockDim.x) / kCombinedColumns;
    chunks = column < part.C ? part.chunks : 0;
    speaks = thread < kCombinedColumns && column < part.C;
  }

  // f(k, p) for each of its chunks k, p the N numbers that it left for the column.
  //   partials: [group][chunk][N][C]
  template <int N, class A, class F>
  __device__ void for_each_chunk(const Chunks& part, const A* partials, const F& f) const {
    const int64_t C = part.C;
    const A* const first = partials + int64_t{group} * part.chunks * N * C + column;
#pragma unroll 1
    for (int begin = chunk; begin < chunks; begin += kChunksAtOnce * step) {
      A p[kChunksAtOnce][N];
#pragma unroll
      for (int i = 0; i < kChunksAtOnce; ++i) {
        const int k = begin + i * step < chunks ? begin + i * step : begin;
        for (int n = 0; n < N; ++n) p[i][n] = first[(k * N + n) * C];
      }
#pragma unroll
      for (int i = 0; i < kChunksAtOnce; ++i)
        if (begin + i * step < chunks) f(begin + i * step, p[i]);
    }
  }

  // Both sums over the threads of the column. Every thread of the block must call, once.
  __device__ static Vector<double, 2> sums(double a, double b) {
    __shared__ Vector<double, 2> of_warp[kMostCombining / 32][kCombinedColumns];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const Vector<double, 2> own = {add_lanes(a), add_lanes(b)};
    if (lane < kCombinedColumns) of_warp[warp][lane] = own;
    __syncthreads();
    if (warp > 0) return own;
    Vector<double, 2> total = {};
    for (int w = lane / kCombinedColumns; w < static_cast<int>(blockDim.x) / 32;
         w += 32 / kCombinedColumns)
      for (int i = 0; i < 2; ++i) total[i] += of_warp[w][lane % kCombinedColumns][i];
    return {add_lanes(total[0]), add_lanes(total[1])};
  }

 private:
  // Over the lanes of the column.
  __device__ static double add_lanes(double x) {
    for (int lanes = 16; lanes >= kCombinedColumns; lanes /= 2)
      x += __shfl_xor_sync(kAllLanes, x, lanes);
    return x;
  }
};

}  // namespace mocograd::MOCO_CUDA
