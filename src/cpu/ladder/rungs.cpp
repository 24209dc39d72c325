#include "cpu/ladder/rungs.h"

namespace mocograd::MOCO_ISA {

extern const LadderRungs ladder_rungs = {
    {gemm_1_naive, gemm_2_loop_order, gemm_3_vectors, gemm_4_register_tile, gemm_5_packing},
    {conv_1_naive, conv_2_vectors, conv_3_im2col, conv_4_pointers}};

}  // namespace mocograd::MOCO_ISA
