// The part of the CPU backend that is the same for every instruction set: its memory.
#pragma once

#include "tensor/backend.h"

namespace mocograd {

class CpuMemory : public Backend {
 public:
  ~CpuMemory() override;
  std::shared_ptr<void> allocate(size_t bytes) final;
  void copy(const Tensor& x, const Tensor& y) final;
  void synchronize() final;

  // Of the system's memory, those that were ever handed out, each counted once.
  static size_t bytes_used();
};

}  // namespace mocograd
