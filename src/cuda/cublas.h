// NVIDIA's matrix products: a library that is looked for when the program runs, so that nothing of it
// is needed to build, and the engine's own kernel (gemm.cu) takes its place where it is not there.
//
//   MOCO_CUBLAS=0       in the environment: it is not looked for
//   MOCO_CUBLAS=FILE    that library, and an error where it cannot be used
//   neither             the first of libcublas.so.13, .12, .11 that works
//   MOCO_EMULATED_CUBLAS=FILE   for the emulator, which else has none: one that multiplies in the host's
//                               memory, as the stand-in of the tests does (tests/fake_cublas.c)
//
// The results are the same from run to run: each stream has a workspace of its own, where NVIDIA
// promises that, and atomic additions are off. A product may also be recorded (memory.cu).
#pragma once

#include <memory>
#include <string>

#include "tensor/tensor.h"

namespace mocograd {

class Cublas {
 public:
  // Throws Error where the file cannot be loaded, is no cuBLAS or refuses this machine.
  explicit Cublas(const std::string& file);
  ~Cublas();

  // From now on it computes on this stream of the runtime's, with these bytes of the device's memory
  // for itself: it then asks for none, which a recording would not survive.
  void run_on(void* stream, void* workspace, size_t bytes) const;

  // c = op(a) · op(b), as the catalogue's gemm, f32 or f64; f32 by tf32 where the precision says so. Or a
  // and b bf16 and c f32.
  void gemm(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b,
            const Tensor& c) const;

  enum class Arithmetic { f64, f32, tf32, bf16 };  // of factors and sums; bf16 is summed in f32
  // The same of dense row-major memory of the device, a and b square: what measures the limits.
  void square_product(Arithmetic arithmetic, int n, const void* a, const void* b, void* c) const;

  const std::string& name() const { return name_; }  // "cuBLAS 13.0.2"

 private:
  struct Functions;
  struct Product;
  void multiply(const Product& product) const;

  std::unique_ptr<const Functions> functions_;
  void* handle_ = nullptr;
  std::string name_;
};

// The library by the value of MOCO_CUBLAS, nullptr where it is not set; nullptr where there is none.
std::unique_ptr<const Cublas> find_cublas(const char* wanted);
// The one that multiplies this device's matrices; nullptr: the engine's own kernel does. It is looked
// for on first use.
const Cublas* cublas_of(Device device);
// From now on the device takes this one. Requires: no kernel running. For tests.
void set_cublas(Device device, const Cublas* library);

}  // namespace mocograd
