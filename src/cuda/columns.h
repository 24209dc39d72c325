// How blocks cover a matrix [rows, C] when something is kept, or summed, for each column.
//
// The 256 threads of a block stand in `width` columns, a power of two up to 32, so that neighbouring
// threads read neighbouring numbers; the 256/width threads of one column take every 256/width-th row
// of the block's chunk of kChunkRows rows. The matrix may consist of several groups of rows, none of
// whose chunks reaches into the next.
#pragma once

#include "cuda/blocks.h"

namespace mocograd::MOCO_CUDA {

constexpr int kChunkRows = 256;

struct ColumnPartition {
  int64_t C, groups;
  int64_t rows;    // of a group
  int64_t chunks;  // of a group; its last may have fewer than kChunkRows rows
  int width, column_blocks;

  ColumnPartition(int64_t columns, int64_t total_rows, int64_t number_of_groups)
      : C(columns), groups(number_of_groups), rows(total_rows / number_of_groups) {
    chunks = ceil_div(rows, kChunkRows);
    width = 32;
    while (width > 1 && width / 2 >= C) width /= 2;
    column_blocks = static_cast<int>(ceil_div(C, width));
  }

  Grid grid() const { return blocks_of(kThreads, groups * chunks * column_blocks); }
  Grid one_thread_a_column() const { return one_thread_each(C); }
  Grid one_thread_a_column_of_each_group() const { return one_thread_each(groups * C); }
};

// What one thread has to do.
struct ColumnPlace {
  int64_t group, chunk, column;
  int64_t first;      // element of the chunk's first row in this column
  int rows;           // of the chunk; 0 beyond the last column
  int row, row_step;  // this thread's first row, and from there to its next
  bool speaks;        // writes what was found out for the column

  __device__ explicit ColumnPlace(const ColumnPartition& part) {
    const int64_t block = blockIdx.x;
    column = block % part.column_blocks * part.width + threadIdx.x % part.width;
    chunk = block / part.column_blocks % part.chunks;
    group = block / part.column_blocks / part.chunks;
    first = (group * part.rows + chunk * kChunkRows) * part.C + column;
    const int64_t left = part.rows - chunk * kChunkRows;
    rows = column >= part.C ? 0 : static_cast<int>(left < kChunkRows ? left : kChunkRows);
    row = threadIdx.x / part.width;
    row_step = kThreads / part.width;
    speaks = row == 0 && column < part.C;
  }
};

// The sum of x over the threads of this thread's column. Every thread of the block must call.
template <class T>
__device__ T column_sum(T x, int width) {
  __shared__ T part[kThreads];
  const int thread = threadIdx.x;
  part[thread] = x;
  __syncthreads();
  for (int half = kThreads / 2; half >= width; half /= 2) {
    if (thread < half) part[thread] += part[thread + half];
    __syncthreads();
  }
  const T sum = part[thread % width];
  __syncthreads();  // before the next call writes
  return sum;
}

}  // namespace mocograd::MOCO_CUDA
