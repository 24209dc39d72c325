// What the tests of the kernels share: each runs on every instruction set of this processor, on the
// emulated GPU and on the GPU where there is one; in f32 and f64, on outputs that were filled with
// NaN beforehand, and again in other orders of the threads (KernelTest::run).
//
//   class PointwiseTest : public KernelTest {};
//   TEST_P(PointwiseTest, Add) { … }
//   MOCO_INSTANTIATE_KERNEL_TEST(PointwiseTest);
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "cpu/instruction_set.h"
#include "cpu/parallel.h"
#include "cuda/cublas.h"
#include "cuda/emulator/scheduler.h"
#include "cuda/tensor_core_instructions.h"
#include "tensor/backend.h"
#include "tensor/precision.h"
#include "tensor/random.h"

namespace mocograd {

using Values = std::vector<double>;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// Whose kernels are tested: those of a device, on the CPU of one instruction set, on a GPU with or
// without its tensor cores or with certain instructions of them, its matrix products by the engine or
// by cuBLAS.
struct Kernels {
  Device device = Device::cpu;
  InstructionSet set = InstructionSet::baseline;
  Precision precision = Precision::fp32;
  const Cublas* cublas = nullptr;
  TensorCoreInstructions instructions = TensorCoreInstructions::automatic;

  std::string name() const {  // also of a test, which may have no '-'
    if (device == Device::cpu) return name_of(set);
    return std::string(device == Device::cuda ? "cuda" : "cuda_emulated") +
           (cublas ? "_cublas" : "") + (precision == Precision::tf32 ? "_tf32" : "") +
           (instructions == TensorCoreInstructions::wgmma ? "_wgmma" : "") +
           (instructions == TensorCoreInstructions::mma ? "_mma" : "");
  }
};

inline std::vector<Kernels> cpu_kernels() {
  std::vector<Kernels> kernels;
  for (InstructionSet set : supported_instruction_sets()) kernels.push_back({Device::cpu, set});
  return kernels;
}
inline std::vector<Kernels> all_kernels() {
  std::vector<Kernels> kernels = cpu_kernels();
  kernels.push_back({.device = Device::cuda_emulated});
  if (device_problem(Device::cuda).empty()) kernels.push_back({.device = Device::cuda});
  return kernels;
}

// Those that take bf16: all, on the emulator wgmma too, and on a GPU mma: what each does not choose.
inline std::vector<Kernels> bf16_kernels() {
  std::vector<Kernels> kernels = all_kernels();
  kernels.push_back(
      {.device = Device::cuda_emulated, .instructions = TensorCoreInstructions::wgmma});
  if (device_problem(Device::cuda).empty())
    kernels.push_back({.device = Device::cuda, .instructions = TensorCoreInstructions::mma});
  return kernels;
}

// Those of them that are a GPU's.
inline std::vector<Kernels> bf16_gpu_kernels() {
  std::vector<Kernels> kernels = bf16_kernels();
  std::erase_if(kernels, [](const Kernels& k) { return k.device == Device::cpu; });
  return kernels;
}

inline std::vector<Kernels> tensor_core_kernels() {
  std::vector<Kernels> kernels = {{.device = Device::cuda_emulated, .precision = Precision::tf32}};
  if (device_problem(Device::cuda).empty())
    kernels.push_back({.device = Device::cuda, .precision = Precision::tf32});
  return kernels;
}

// cuBLAS on a GPU where both are there; on the emulator always one of plain loops, fake_cublas.c.
inline const Cublas& fake_cublas() {
  static const Cublas* const library =
      new Cublas(std::filesystem::read_symlink("/proc/self/exe").parent_path() / "fake_cublas.so");
  return *library;
}
inline std::vector<Kernels> cublas_kernels(Precision precision) {
  std::vector<Kernels> kernels = {
      {.device = Device::cuda_emulated, .precision = precision, .cublas = &fake_cublas()}};
  if (device_problem(Device::cuda).empty() && cublas_of(Device::cuda))
    kernels.push_back(
        {.device = Device::cuda, .precision = precision, .cublas = cublas_of(Device::cuda)});
  return kernels;
}

class KernelTest : public testing::TestWithParam<std::tuple<Kernels, DType>> {
 protected:
  KernelTest() {
    if (device() == Device::cpu) use_instruction_set(std::get<0>(GetParam()).set);
    set_precision(std::get<0>(GetParam()).precision);
    set_tensor_core_instructions(std::get<0>(GetParam()).instructions);
    if (device() == Device::cpu) return;
    cublas_before_ = cublas_of(device());
    set_cublas(device(), std::get<0>(GetParam()).cublas);
  }
  ~KernelTest() override {
    if (device() != Device::cpu) set_cublas(device(), cublas_before_);
    use_instruction_set(set_before_);
    set_num_threads(threads_before_);
    set_precision(Precision::fp32);
    set_tensor_core_instructions(TensorCoreInstructions::automatic);
  }

  static Device device() { return std::get<0>(GetParam()).device; }
  static DType dtype() { return std::get<1>(GetParam()); }
  static TensorOptions options() { return {dtype(), device()}; }
  // Of what is computed in (f32 for bf16), the distance from 1 to the next number: twice the relative
  // error of one operation.
  double eps() const { return dtype() == DType::f64 ? 0x1p-52 : 0x1p-23; }
  // What a product of two factors loses by their rounding: of each at most half of tf32's last place.
  static double product_error() {
    return std::get<0>(GetParam()).precision == Precision::tf32 ? 2 * 0x1p-11 + 0x1p-22 : 0;
  }
  // What a number loses that is rounded to the tensors' dtype, relatively: half of bf16's last place.
  static double storage_error() { return dtype() == DType::bf16 ? 0x1p-8 : 0; }
  Backend& kernels() const { return backend_of(device()); }

  // Uniform numbers; `name` tells one tensor of a test from the next.
  Tensor uniform(const Shape& shape, uint32_t name, double low = -1, double high = 1) const {
    return uniform(shape, name, low, high, dtype());
  }
  Tensor uniform(const Shape& shape, uint32_t name, double low, double high, DType dtype) const {
    RandomStream random(7, Purpose::test, 0, name);
    Values values(static_cast<size_t>(shape.numel()));
    for (double& value : values) value = random.uniform(low, high);
    return Tensor::from(values, shape, {dtype, device()});
  }
  Tensor labels(int64_t n, int64_t classes, uint32_t name) const {
    RandomStream random(7, Purpose::test, 0, name);
    Values values(static_cast<size_t>(n));
    for (double& value : values) value = static_cast<double>(random.below(classes));
    return Tensor::from(values, {n}, {DType::i64, device()});
  }
  // The same numbers in memory where no vector begins.
  static Tensor displaced(const Tensor& x) {
    const Tensor y = Tensor::empty({x.numel() + 1}, x.options()).rows(1, x.numel() + 1);
    y.copy_from(x.reshape({x.numel()}));
    return y.reshape(x.shape());
  }
  // A tensor to write to, whose present numbers a test would notice.
  static Tensor poisoned(const Shape& shape, DType dtype) {
    return Tensor::full(shape,
                        dtype == DType::u8    ? 255
                        : dtype == DType::i64 ? -999
                                              : kNaN,
                        {dtype, device()});
  }
  Tensor poisoned(const Shape& shape) const { return poisoned(shape, dtype()); }

  // Runs on the CPU with 1, 2 and 3 threads, on the emulator in two orders of the GPU's threads, on
  // a GPU twice; expects the same bits, and returns the results, in the host's memory.
  static std::vector<Tensor> run(const std::function<std::vector<Tensor>()>& kernel) {
    choose_order(1);
    const std::vector<Tensor> results = on_host(kernel());
    for (int order = 2; order <= (device() == Device::cpu ? 3 : 2); ++order) {
      choose_order(order);
      const std::vector<Tensor> again = on_host(kernel());
      for (size_t i = 0; i < results.size(); ++i) {
        EXPECT_EQ(0, std::memcmp(results[i].raw_bytes(), again[i].raw_bytes(), results[i].bytes()))
            << "result " << i << " differs in order " << order;
      }
    }
    return results;
  }

 private:
  static void choose_order(int order) {
    if (device() == Device::cpu) set_num_threads(order);
    if (device() == Device::cuda_emulated) emulator::set_seed(static_cast<uint64_t>(order));
  }
  static std::vector<Tensor> on_host(std::vector<Tensor> tensors) {
    for (Tensor& tensor : tensors) tensor = tensor.to(Device::cpu);
    return tensors;
  }

  InstructionSet set_before_ = instruction_set();
  int threads_before_ = num_threads();
  const Cublas* cublas_before_ = nullptr;
};

inline std::string name_of_case(const testing::TestParamInfo<std::tuple<Kernels, DType>>& info) {
  return std::get<0>(info.param).name() + "_" + name_of(std::get<1>(info.param));
}

// |actual − expected| <= bound for each element; written so that NaN fails.
inline void expect_within(const Tensor& actual, const Values& expected, const Values& bound,
                          const std::string& what) {
  const Values values = actual.to_vector();
  ASSERT_EQ(values.size(), expected.size()) << what;
  for (size_t i = 0; i < values.size(); ++i) {
    if (!(std::abs(values[i] - expected[i]) <= bound[i])) {
      FAIL() << what << "[" << i << "] is " << values[i] << ", expected " << expected[i]
             << " within " << bound[i];
    }
  }
}
inline void expect_exactly(const Tensor& actual, const Values& expected, const std::string& what) {
  expect_within(actual, expected, Values(expected.size(), 0), what);
}

#define MOCO_INSTANTIATE_KERNEL_TEST(topic)                                                        \
  INSTANTIATE_TEST_SUITE_P(                                                                        \
      Kernels, topic,                                                                              \
      testing::Combine(testing::ValuesIn(all_kernels()), testing::Values(DType::f32, DType::f64)), \
      name_of_case)

// Likewise, of activations in bf16.
#define MOCO_INSTANTIATE_BF16_TEST(topic)                                                \
  INSTANTIATE_TEST_SUITE_P(                                                              \
      Bf16, topic,                                                                       \
      testing::Combine(testing::ValuesIn(bf16_kernels()), testing::Values(DType::bf16)), \
      name_of_case)

// Likewise, of the products on the tensor cores.
#define MOCO_INSTANTIATE_TENSOR_CORE_TEST(topic)                                               \
  INSTANTIATE_TEST_SUITE_P(                                                                    \
      TensorCores, topic,                                                                      \
      testing::Combine(testing::ValuesIn(tensor_core_kernels()), testing::Values(DType::f32)), \
      name_of_case)

// Likewise, of the products by cuBLAS.
#define MOCO_INSTANTIATE_CUBLAS_TEST(topic)                                                     \
  INSTANTIATE_TEST_SUITE_P(Cublas, topic,                                                       \
                           testing::Combine(testing::ValuesIn(cublas_kernels(Precision::fp32)), \
                                            testing::Values(DType::f32, DType::f64)),           \
                           name_of_case);                                                       \
  INSTANTIATE_TEST_SUITE_P(CublasTensorCores, topic,                                            \
                           testing::Combine(testing::ValuesIn(cublas_kernels(Precision::tf32)), \
                                            testing::Values(DType::f32)),                       \
                           name_of_case)

inline std::vector<Kernels> kernels_that_record() {
  std::vector<Kernels> kernels = {{.device = Device::cuda_emulated}};
  if (device_problem(Device::cuda).empty()) kernels.push_back({.device = Device::cuda});
  return kernels;
}

}  // namespace mocograd
