// A kernel to look at in gdb, on the emulator: tests/emulator_gdb_test.sh and docs/EMULATOR.md.
#include <cstdio>
#include <vector>

#include "cuda/launch.h"

namespace mocograd::MOCO_CUDA {
namespace {

constexpr int kThreads = 32;

// y_i = 2 x_i + 2 x_j, where j is the next element of the block, the first after the last
__global__ void add_neighbours_kernel(const float* x, float* y) {
  __shared__ float tile[kThreads];
  const unsigned i = blockIdx.x * kThreads + threadIdx.x;
  const float mine = 2 * x[i];
  tile[threadIdx.x] = mine;
  __syncthreads();
  const float neighbour = tile[(threadIdx.x + 1) % kThreads];
  y[i] = mine + neighbour;
}

void add_neighbours(const std::vector<float>& x, std::vector<float>& y) {
  const unsigned blocks = static_cast<unsigned>(x.size()) / kThreads;
  launch(add_neighbours_kernel, Grid{blocks, kThreads}, x.data(), y.data());
}

}  // namespace
}  // namespace mocograd::MOCO_CUDA

int main() {
  std::vector<float> x(4 * 32), y(x.size());
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i);
  mocograd::MOCO_CUDA::add_neighbours(x, y);
  std::printf("y[69] = %g\n", y[69]);
}
