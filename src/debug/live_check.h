// Checks of operations of a recorded step, on the very inputs that they had.
//
//   as it ran     what it computed, in f32 say, and what its backward did, once backward was there,
//                 against the same in double from the same inputs and the same arriving gradient:
//                   ‖computed − double‖ ≤ 10⁻³ ‖double‖ + 10⁻⁶ ‖inputs‖   (bf16 and tf32: 2·10⁻², 10⁻³)
//                 A wrong sign is 2 ‖double‖ away; the inputs stand for what cancels in the result.
//                 So kernels that exist in f32 or bf16 alone, as Winograd's, are checked, too.
//   gradcheck     its backward, computed in double, against central differences
//                 (GradcheckOptions::unchosen_inputs)
//
// OperationDetails tells how to do the operation again.
#pragma once

#include "debug/step_record.h"

namespace mocograd {

struct LiveCheck {
  bool failed = false;
  int64_t elements = 0;  // that gradcheck compared; 0 where nothing was told
  // "passed: 100 elements, worst error 3.1e-10 at in1 [0, 1, 2, 3]", "FAILED: …" or "not checked: …"
  std::string text;
};

// A forward operation of the record; max_elements of each input. Not checked: where an input is not
// finite, and where no number depends on any. Throws where the operation has no backward to check.
LiveCheck check_live(const StepRecord& record, const RecordedOperation& operation,
                     int64_t max_elements);

}  // namespace mocograd
