#include "cuda/cublas.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <initializer_list>
#include <limits>
#include <type_traits>

#include "tensor/error.h"
#include "tensor/precision.h"

namespace mocograd {
namespace {

// cuBLAS's own constants, the same since CUDA 11.
constexpr int kSuccess = 0, kAtomicsNotAllowed = 0, kDefaultAlgorithm = -1;
constexpr int kNotTransposed = 0, kTransposed = 1;
// How the numbers of a kind of arithmetic are stored (cudaDataType_t) and computed with
// (cublasComputeType_t).
struct Types {
  int factors, sums, compute;
};
Types types_of(Cublas::Arithmetic arithmetic) {
  constexpr int kR32F = 0, kR64F = 1, kR16BF = 14;
  constexpr int kCompute32F = 68, kCompute64F = 70, kCompute32FFastTF32 = 77;
  switch (arithmetic) {
    case Cublas::Arithmetic::f64:
      return {kR64F, kR64F, kCompute64F};
    case Cublas::Arithmetic::f32:
      return {kR32F, kR32F, kCompute32F};
    case Cublas::Arithmetic::tf32:
      return {kR32F, kR32F, kCompute32FFastTF32};
    case Cublas::Arithmetic::bf16:
      return {kR16BF, kR32F, kCompute32F};
  }
  MOCO_CHECK(false, "cublas: unknown arithmetic ", static_cast<int>(arithmetic));
}

// 130002 → "13.0.2"
std::string version_text(int version) {
  return detail::concatenate(version / 10000, ".", version / 100 % 100, ".", version % 100);
}

int as_int(int64_t value) {
  MOCO_CHECK(value <= std::numeric_limits<int>::max(), "cublas: a side of ", value,
             " is more than it multiplies");
  return static_cast<int>(value);
}

}  // namespace

// From cublas_v2.h. Enumerations are passed as int.
struct Cublas::Functions {
  int (*create)(void** handle);
  int (*destroy)(void* handle);
  int (*get_version)(void* handle, int* version);
  int (*set_atomics_mode)(void* handle, int mode);
  int (*set_stream)(void* handle, void* stream);
  int (*set_workspace)(void* handle, void* workspace, size_t bytes);
  int (*gemm_ex)(void* handle, int transpose_a, int transpose_b, int m, int n, int k,
                 const void* alpha, const void* a, int a_type, int lda, const void* b, int b_type,
                 int ldb, const void* beta, void* c, int c_type, int ldc, int compute_type,
                 int algorithm);
};

// c = op(a) · op(b), all row-major: M, N and K are the catalogue's, the columns those in memory.
struct Cublas::Product {
  Arithmetic arithmetic;
  int M, N, K;
  const void* a;
  bool transpose_a;
  int a_columns;
  const void* b;
  bool transpose_b;
  int b_columns;
  void* c;
};

Cublas::Cublas(const std::string& file) {
  void* const library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);  // for good
  if (!library) throw Error(std::string("cublas: ") + dlerror());
  Functions functions{};
  const auto find = [&](const char* symbol, auto& function) {
    function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, symbol));
    if (!function) throw Error("cublas: " + file + " has no " + symbol);
  };
  find("cublasCreate_v2", functions.create);
  find("cublasDestroy_v2", functions.destroy);
  find("cublasGetVersion_v2", functions.get_version);
  find("cublasSetAtomicsMode", functions.set_atomics_mode);
  find("cublasSetStream_v2", functions.set_stream);
  find("cublasSetWorkspace_v2", functions.set_workspace);
  find("cublasGemmEx", functions.gemm_ex);
  const int status = functions.create(&handle_);
  if (status != kSuccess)
    throw Error(detail::concatenate("cublas: ", file, " refuses this machine: status ", status));
  functions_ = std::make_unique<const Functions>(functions);
  int version = 0;
  functions_->get_version(handle_, &version);
  name_ = "cuBLAS " + version_text(version);
  functions_->set_atomics_mode(handle_, kAtomicsNotAllowed);
}

Cublas::~Cublas() {
  functions_->destroy(handle_);
}

// In this order: a new stream takes back the workspace.
void Cublas::run_on(void* stream, void* workspace, size_t bytes) const {
  for (int status : {functions_->set_stream(handle_, stream),
                     functions_->set_workspace(handle_, workspace, bytes)})
    if (status != kSuccess)
      throw Error(
          detail::concatenate("cublas: a stream and ", bytes, " bytes for it: status ", status));
}

void Cublas::gemm(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b,
                  const Tensor& c) const {
  Arithmetic arithmetic = precision() == Precision::tf32 ? Arithmetic::tf32 : Arithmetic::f32;
  if (c.dtype() == DType::f64) arithmetic = Arithmetic::f64;
  if (a.dtype() == DType::bf16) arithmetic = Arithmetic::bf16;
  multiply({.arithmetic = arithmetic,
            .M = as_int(c.dim(0)),
            .N = as_int(c.dim(1)),
            .K = as_int(a.dim(transpose_a ? 0 : 1)),
            .a = a.raw_bytes(),
            .transpose_a = transpose_a,
            .a_columns = as_int(a.dim(1)),
            .b = b.raw_bytes(),
            .transpose_b = transpose_b,
            .b_columns = as_int(b.dim(1)),
            .c = c.raw_bytes()});
}

void Cublas::square_product(Arithmetic arithmetic, int n, const void* a, const void* b,
                            void* c) const {
  multiply({arithmetic, n, n, n, a, false, n, b, false, n, c});
}

// cuBLAS reads memory column by column, and so takes a row-major matrix for its transpose. What it is
// to write is therefore cᵀ = op(b)ᵀ · op(a)ᵀ, of which it finds each factor transposed already.
void Cublas::multiply(const Product& p) const {
  if (p.M == 0 || p.N == 0) return;
  const Types types = types_of(p.arithmetic);
  const float one = 1, zero = 0;
  const double one_f64 = 1, zero_f64 = 0;
  const bool f64 = p.arithmetic == Arithmetic::f64;
  const auto transposition = [](bool transpose) {
    return transpose ? kTransposed : kNotTransposed;
  };
  const int status = functions_->gemm_ex(
      handle_, transposition(p.transpose_b), transposition(p.transpose_a), p.N, p.M, p.K,
      f64 ? static_cast<const void*>(&one_f64) : &one, p.b, types.factors, std::max(p.b_columns, 1),
      p.a, types.factors, std::max(p.a_columns, 1),
      f64 ? static_cast<const void*>(&zero_f64) : &zero, p.c, types.sums, p.N, types.compute,
      kDefaultAlgorithm);
  if (status != kSuccess)
    throw Error(detail::concatenate("cublas: a product of ", p.M, " x ", p.K, " and ", p.K, " x ",
                                    p.N, ": status ", status));
}

// ---- which is in use -----------------------------------------------------------------------------

std::unique_ptr<const Cublas> find_cublas(const char* wanted) {
  if (wanted && std::string(wanted) == "0") return nullptr;
  if (wanted && *wanted) return std::make_unique<const Cublas>(wanted);
  for (const char* file : {"libcublas.so.13", "libcublas.so.12", "libcublas.so.11"}) {
    try {
      return std::make_unique<const Cublas>(file);
    } catch (const Error&) {  // another version may do, and the engine has a kernel of its own
    }
  }
  return nullptr;
}

namespace {

// Which a device takes. Never closed: the GPU may be gone before the program's last object.
const Cublas*& library_of(Device device) {
  if (device == Device::cuda) {
    static const Cublas* library = find_cublas(std::getenv("MOCO_CUBLAS")).release();
    return library;
  }
  static const Cublas* library = [] {
    const char* const file = std::getenv("MOCO_EMULATED_CUBLAS");
    return file && *file ? new Cublas(file) : nullptr;
  }();
  return library;
}

}  // namespace

const Cublas* cublas_of(Device device) {
  return library_of(device);
}

void set_cublas(Device device, const Cublas* library) {
  library_of(device) = library;
}

}  // namespace mocograd
