#include "cpu/ladder/ladder.h"

#include "cpu/conv_algorithm.h"
#include "cpu/instruction_set.h"
#include "cpu/ladder/rungs.h"
#include "tensor/backend.h"

namespace mocograd {

namespace avx512 {
extern const LadderRungs ladder_rungs;
}
namespace avx2 {
extern const LadderRungs ladder_rungs;
}
namespace baseline {
extern const LadderRungs ladder_rungs;
}

namespace {

const LadderRungs& rungs() {
  switch (instruction_set()) {
    case InstructionSet::avx512:
      return avx512::ladder_rungs;
    case InstructionSet::avx2:
      return avx2::ladder_rungs;
    case InstructionSet::baseline:
      return baseline::ladder_rungs;
  }
  MOCO_CHECK(false, "ladder: unknown instruction set");
}

Rung gemm_rung(int index, const char* name, const char* idea) {
  return {
      name, idea, false,
      [kernel = rungs().gemm[index]](const Tensor& a, const Tensor& b, const Tensor& c) {
        kernel({a.dim(0), b.dim(1), a.dim(1), a.data<float>(), b.data<float>(), c.data<float>()});
      }};
}

Rung conv_rung(int index, const char* name, const char* idea) {
  return {name, idea, false,
          [kernel = rungs().conv[index]](const Tensor& x, const Tensor& w, const Tensor& y) {
            kernel({x.dim(0), x.dim(1), x.dim(2), x.dim(3), w.dim(3), x.data<float>(),
                    w.data<float>(), y.data<float>()});
          }};
}

Rung engine_conv(const char* name, const char* idea, ConvAlgorithm algorithm) {
  return {name, idea, true, [algorithm](const Tensor& x, const Tensor& w, const Tensor& y) {
            const ConvAlgorithm before = conv_algorithm();
            set_conv_algorithm(algorithm);
            y.backend().conv2d_forward(x, w, {.stride = 1, .padding = 1}, y);
            set_conv_algorithm(before);
          }};
}

}  // namespace

std::vector<Rung> gemm_ladder() {
  return {gemm_rung(0, "gemm_1_naive", "the definition"),
          gemm_rung(1, "gemm_2_loop_order", "rows of b and c in order"),
          gemm_rung(2, "gemm_3_vectors", "a register's worth of columns at once"),
          gemm_rung(3, "gemm_4_register_tile", "sums stay in registers"),
          gemm_rung(4, "gemm_5_packing", "b in panels that stay in a cache"),
          {"gemm", "the engine: blocks become tasks for threads", true,
           [](const Tensor& a, const Tensor& b, const Tensor& c) {
             c.backend().gemm(a, false, b, false, c);
           }}};
}

std::vector<Rung> conv_ladder() {
  return {
      conv_rung(0, "conv_1_naive", "the definition"),
      conv_rung(1, "conv_2_vectors", "a register's worth of output channels at once"),
      conv_rung(2, "conv_3_im2col", "a matrix of patches, then a matrix product"),
      conv_rung(3, "conv_4_pointers", "register tiles that read x where it lies"),
      engine_conv("conv2d", "the engine, direct: bordered blocks, threads", ConvAlgorithm::direct),
      engine_conv("winograd", "the engine by its rule: a quarter of the products",
                  ConvAlgorithm::automatic)};
}

}  // namespace mocograd
