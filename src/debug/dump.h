// Dump: every intermediate result and every gradient of training steps, by stable names.
//
//   step.<s>.forward.<name>     what the operation computed
//   step.<s>.backward.<name>    ∂loss/∂(what it computed), as it arrived there
// <name> as in debug/operation_names.h. Images are in PyTorch's order [N, C, H, W]. The key "order"
// of the metadata lists the names in the order in which they were computed, one a line; `moco debug
// diff` walks it.
#pragma once

#include "debug/operation_names.h"
#include "io/safetensors.h"

namespace mocograd {

inline constexpr const char* kDumpOrderKey = "order";

// The next in order.
void add_to_dump(const std::string& name, const Tensor& tensor, NamedTensors& dump);

class Dumper : public OperationObserver {
 public:
  // Adds to `dump`, which outlives it.
  explicit Dumper(NamedTensors& dump) : dump_(dump) {}

  void begin_step(int64_t step);
  void operation(const Operation& operation) override;

 private:
  NamedTensors& dump_;
  OperationNames names_;
  int64_t step_ = 0;
};

}  // namespace mocograd
