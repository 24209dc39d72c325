// gemm: c = op(a) · op(b)
//   c_mn = Σ_k a_mk b_kn                      op(a): [M, K]; op(b): [K, N]; c: [M, N]
//
// A transposed matrix is the same memory read the other way round, and only changes which way
// neighbouring threads go (tile_product.h). Where there is cuBLAS, it computes instead (cublas.h).
#include <map>

#include "cuda/cublas.h"
#include "cuda/tile_product.h"

namespace mocograd::MOCO_CUDA {
namespace {

// Calls f with the operand whose element (i, k) is x[i][k], or x[k][i] where k is the outer one.
template <class T, class F>
void with_operand(const Tensor& x, bool k_is_outer, const F& f) {
  if (k_is_outer) {
    f(MatrixOperand<T, false>{x.raw<T>(), x.dim(1)});
  } else {
    f(MatrixOperand<T, true>{x.raw<T>(), x.dim(1)});
  }
}

// NVIDIA asks for 32 MiB on an H100, less on others.
constexpr size_t kWorkspace = size_t{32} << 20;

}  // namespace

const Cublas* ready_cublas(Device device) {
  const Cublas* const cublas = cublas_of(device);
#ifdef __CUDACC__
  static const Cublas* ready = nullptr;
  static cudaStream_t ready_stream = nullptr;
  static std::map<cudaStream_t, void*> workspaces;  // for good
  if (cublas && (cublas != ready || stream() != ready_stream)) {
    void*& workspace = workspaces[stream()];
    if (workspace == nullptr) workspace = device_allocate(kWorkspace);
    ready = nullptr;  // until it is
    cublas->run_on(stream(), workspace, kWorkspace);
    ready = cublas;
    ready_stream = stream();
  }
#endif
  return cublas;
}

void CudaBackend::gemm(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b,
                       const Tensor& c) {
  if (c.dtype() == DType::f32 && on_tensor_cores<float>()) require_tensor_cores(Precision::tf32);
  if (const Cublas* cublas = ready_cublas(c.device()))
    return cublas->gemm(a, transpose_a, b, transpose_b, c);
  const int64_t M = c.dim(0), N = c.dim(1), K = a.dim(transpose_a ? 0 : 1);
  with_float_type(c.dtype(), [&](auto zero) {
    using T = decltype(zero);
    with_operand<T>(a, transpose_a, [&](const auto& left) {
      with_operand<T>(b, !transpose_b,
                      [&](const auto& right) { tile_product(left, right, M, N, K, c.raw<T>()); });
    });
  });
}

}  // namespace mocograd::MOCO_CUDA
