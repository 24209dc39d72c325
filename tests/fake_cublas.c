// Stands in for libcublas.so: the functions that src/cuda/cublas.cpp calls, by plain loops on the host's
// memory, column by column as NVIDIA's documentation has it. Refuses what cuBLAS refuses.
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { kSuccess = 0, kInvalidValue = 7, kNotSupported = 15 };
enum { kR32F = 0, kR64F = 1, kR16BF = 14 };
enum { kCompute32F = 68, kCompute64F = 70, kCompute32FFastTF32 = 77 };

static int handles, atomics_mode = -1;

int cublasCreate_v2(void** handle) {
  *handle = &handles;
  return kSuccess;
}

int cublasDestroy_v2(void* handle) {
  return handle == &handles ? kSuccess : kInvalidValue;
}

int cublasGetVersion_v2(void* handle, int* version) {
  *version = 130102;
  return handle == &handles ? kSuccess : kInvalidValue;
}

int cublasSetAtomicsMode(void* handle, int mode) {
  atomics_mode = mode;
  return handle == &handles ? kSuccess : kInvalidValue;
}

// To tf32: 10 bits after the point, the nearest.
static float rounded(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  if (x == x) bits = (bits + 0x1000) & ~0x1fffu;
  memcpy(&x, &bits, sizeof bits);
  return x;
}

static double element(const void* matrix, int type, int compute_type, size_t i) {
  if (type == kR64F) return ((const double*)matrix)[i];
  if (type == kR16BF) {
    const uint32_t bits = (uint32_t)((const uint16_t*)matrix)[i] << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return (double)x;
  }
  const float x = ((const float*)matrix)[i];
  return (double)(compute_type == kCompute32FFastTF32 ? rounded(x) : x);
}

static int largest(int a, int b) { return a > b ? a : b; }

// c = alpha · op(a) · op(b) + beta · c      op(a): [m, k], op(b): [k, n], c: [m, n]
int cublasGemmEx(void* handle, int transpose_a, int transpose_b, int m, int n, int k,
                 const void* alpha, const void* a, int a_type, int lda, const void* b, int b_type,
                 int ldb, const void* beta, void* c, int c_type, int ldc, int compute_type,
                 int algorithm) {
  if (handle != &handles || atomics_mode != 0 || algorithm != -1) return kInvalidValue;
  if (m < 0 || n < 0 || k < 0) return kInvalidValue;
  if (lda < largest(1, transpose_a ? k : m) || ldb < largest(1, transpose_b ? n : k) ||
      ldc < largest(1, m))
    return kInvalidValue;
  const int f64 = compute_type == kCompute64F;
  const int f32 = compute_type == kCompute32F || compute_type == kCompute32FFastTF32;
  if (a_type != b_type || (!f64 && !f32) || c_type != (f64 ? kR64F : kR32F)) return kNotSupported;
  if (f64 ? a_type != kR64F : a_type != kR32F && a_type != kR16BF) return kNotSupported;
  const double factor = f64 ? *(const double*)alpha : (double)*(const float*)alpha;
  const double old = f64 ? *(const double*)beta : (double)*(const float*)beta;
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      double sum = 0;
      for (int l = 0; l < k; ++l) {
        const size_t at_a = transpose_a ? l + (size_t)i * lda : i + (size_t)l * lda;
        const size_t at_b = transpose_b ? j + (size_t)l * ldb : l + (size_t)j * ldb;
        sum += element(a, a_type, compute_type, at_a) * element(b, b_type, compute_type, at_b);
      }
      const size_t at = i + (size_t)j * ldc;
      sum *= factor;
      if (f64) {
        ((double*)c)[at] = old == 0 ? sum : sum + old * ((double*)c)[at];
      } else {
        ((float*)c)[at] = (float)(old == 0 ? sum : sum + old * ((float*)c)[at]);
      }
    }
  }
  return kSuccess;
}
