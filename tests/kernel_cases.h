// What the tests of the CPU kernels share: each runs on every instruction set of this processor, in
// f32 and f64, with 1, 2 and 3 threads, on outputs that were filled with NaN beforehand.
//
//   class PointwiseTest : public KernelTest {};
//   TEST_P(PointwiseTest, Add) { … }
//   MOCO_INSTANTIATE_KERNEL_TEST(PointwiseTest);
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "cpu/instruction_set.h"
#include "cpu/parallel.h"
#include "tensor/backend.h"
#include "tensor/random.h"

namespace mocograd {

using Values = std::vector<double>;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

class KernelTest : public testing::TestWithParam<std::tuple<InstructionSet, DType>> {
 protected:
  KernelTest() { use_instruction_set(std::get<0>(GetParam())); }
  ~KernelTest() override {
    use_instruction_set(set_before_);
    set_num_threads(threads_before_);
  }

  DType dtype() const { return std::get<1>(GetParam()); }
  // The distance from 1 to the next number: twice the relative error of one operation.
  double eps() const { return dtype() == DType::f32 ? 0x1p-23 : 0x1p-52; }
  Backend& kernels() const { return backend_of(Device::cpu); }

  // Uniform numbers; `name` tells one tensor of a test from the next.
  Tensor uniform(const Shape& shape, uint32_t name, double low = -1, double high = 1) const {
    RandomStream random(7, Purpose::test, 0, name);
    Values values(static_cast<size_t>(shape.numel()));
    for (double& value : values) value = random.uniform(low, high);
    return Tensor::from(values, shape, {dtype()});
  }
  Tensor labels(int64_t n, int64_t classes, uint32_t name) const {
    RandomStream random(7, Purpose::test, 0, name);
    Tensor label = Tensor::empty({n}, {DType::i64});
    for (int64_t i = 0; i < n; ++i) label.data<int64_t>()[i] = random.below(classes);
    return label;
  }
  // A tensor to write to, whose present numbers a test would notice.
  static Tensor poisoned(const Shape& shape, DType dtype) {
    return Tensor::full(shape,
                        dtype == DType::u8    ? 255
                        : dtype == DType::i64 ? -999
                                              : kNaN,
                        {dtype});
  }
  Tensor poisoned(const Shape& shape) const { return poisoned(shape, dtype()); }

  // Runs with 1, 2 and 3 threads, expects the same bits, and returns the results.
  static std::vector<Tensor> run(const std::function<std::vector<Tensor>()>& kernel) {
    set_num_threads(1);
    const std::vector<Tensor> results = kernel();
    for (int threads : {2, 3}) {
      set_num_threads(threads);
      const std::vector<Tensor> again = kernel();
      for (size_t i = 0; i < results.size(); ++i) {
        EXPECT_EQ(0, std::memcmp(results[i].raw_bytes(), again[i].raw_bytes(), results[i].bytes()))
            << "result " << i << " differs with " << threads << " threads";
      }
    }
    return results;
  }

 private:
  InstructionSet set_before_ = instruction_set();
  int threads_before_ = num_threads();
};

inline std::string name_of_case(
    const testing::TestParamInfo<std::tuple<InstructionSet, DType>>& info) {
  return std::string(name_of(std::get<0>(info.param))) + "_" + name_of(std::get<1>(info.param));
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

#define MOCO_INSTANTIATE_KERNEL_TEST(topic)                                                  \
  INSTANTIATE_TEST_SUITE_P(Kernels, topic,                                                   \
                           testing::Combine(testing::ValuesIn(supported_instruction_sets()), \
                                            testing::Values(DType::f32, DType::f64)),        \
                           name_of_case)

}  // namespace mocograd
