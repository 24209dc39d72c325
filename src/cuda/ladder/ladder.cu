// The rungs in order, once for the GPU and once for the emulator.
#include "cuda/blocks.h"
#include "cuda/capability.h"
#include "cuda/cublas.h"
#include "cuda/ladder/rungs.h"
#include "tensor/backend.h"

namespace mocograd::MOCO_CUDA {
namespace {

// The convolution as the engine computes it in this precision.
Rung engine_conv(const char* idea, Precision precision) {
  return {std::string("conv2d, ") + name_of(precision), idea, true,
          [](const Tensor& x, const Tensor& w, const Tensor& y) {
            y.backend().conv2d_forward(x, w, {.stride = 1, .padding = 1}, y);
          },
          precision};
}

}  // namespace

std::vector<Rung> gemm_ladder() {
  std::vector<Rung> rungs = {
      {"gemm_1_naive", "the definition", false, gemm_1_naive},
      {"gemm_2_shared_tile", "a block's tiles of a and b in shared memory", false,
       gemm_2_shared_tile},
      {"gemm_3_register_tile", "the engine, fp32: 16 sums of a thread in registers", true,
       gemm_3_register_tile},
      {"gemm_4_tensor_cores", "the engine, tf32: products of a warp", true, gemm_4_tensor_cores,
       Precision::tf32},
      {"gemm_5_pipeline", "the engine, bf16: copies ahead, ldmatrix, no two in one bank", true,
       gemm_5_pipeline, Precision::bf16}};
  if (has_wgmma())
    rungs.push_back({"gemm_6_wgmma", "the engine, bf16: products of four warps from shared memory",
                     true, gemm_6_wgmma, Precision::bf16});
  return rungs;
}

std::vector<Rung> conv_ladder() {
  return {{"conv_1_naive", "the definition", false, conv_1_naive},
          engine_conv("a product by tiles whose a is never in memory", Precision::fp32),
          engine_conv("by the pipeline, rounded when it is loaded", Precision::tf32),
          engine_conv("in half the bytes; from windows where wgmma can", Precision::bf16)};
}

std::vector<Rung> cublas_products() {
  std::vector<Rung> products;
  if (!cublas_of(kDevice)) return products;
  for (Precision precision : {Precision::fp32, Precision::tf32, Precision::bf16})
    products.push_back({std::string("cuBLAS, ") + name_of(precision), "NVIDIA's library", false,
                        [](const Tensor& a, const Tensor& b, const Tensor& c) {
                          ready_cublas(kDevice)->gemm(a, false, b, false, c);
                        },
                        precision});
  return products;
}

}  // namespace mocograd::MOCO_CUDA
