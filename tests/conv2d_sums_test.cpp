// What the convolutions leave for a batch norm where their kernels can: the statistics of their
// result, and of the gradient behind its ReLU the sums. Results are those of the plain entries, bit
// for bit; sums are judged by the numbers that were stored.
//
// Errors: a sum of n terms in any order is off by at most n·eps·Σ|terms|. Of deviations from a number
// among the x, which no deviation exceeds the range of the x.
#include <algorithm>

#include "cpu/conv_algorithm.h"
#include "kernel_cases.h"

namespace mocograd {
namespace {

struct Case {
  int64_t N, H, W, C, OC, kernel, stride, padding, S;

  Shape y() const {
    return {N, (H + 2 * padding - kernel) / stride + 1, (W + 2 * padding - kernel) / stride + 1,
            OC};
  }
  std::string to_string() const {
    return "x " + Shape{N, H, W, C}.to_string() + ", w " +
           Shape{kernel, kernel, C, OC}.to_string() + ", stride " + std::to_string(stride) +
           ", padding " + std::to_string(padding) + ", " + std::to_string(S) + " groups";
  }
};

// On the CPU by Winograd: groups that end within a block of tiles, images that no tile divides, more
// channels than tiles, both strides.
const Case kWinogradCases[] = {{4, 8, 8, 16, 16, 3, 1, 1, 1},   {4, 8, 8, 16, 16, 3, 1, 1, 4},
                               {6, 10, 7, 16, 48, 3, 1, 1, 2},  {9, 8, 12, 32, 16, 3, 1, 1, 3},
                               {24, 4, 4, 32, 64, 3, 1, 1, 3},  {9, 8, 8, 16, 32, 3, 2, 1, 3},
                               {6, 16, 15, 32, 16, 3, 2, 1, 2}, {4, 21, 22, 16, 16, 3, 2, 1, 2},
                               {9, 8, 8, 32, 64, 3, 2, 1, 1}};
// Directly: 3×3, 1×1 and 7×7, with both strides; channels that fill no vector; groups of one image.
const Case kDirectCases[] = {{6, 5, 7, 3, 5, 3, 1, 1, 3},    {4, 3, 5, 64, 32, 3, 1, 1, 2},
                             {4, 9, 9, 8, 24, 3, 2, 1, 2},   {4, 8, 8, 16, 32, 1, 2, 0, 4},
                             {6, 7, 7, 17, 19, 1, 1, 0, 3},  {8, 1, 1, 16, 32, 1, 1, 0, 2},
                             {2, 23, 21, 3, 16, 7, 2, 3, 2}, {4, 6, 6, 1, 1, 3, 1, 1, 1},
                             {8, 8, 8, 3, 64, 3, 1, 1, 8},   {6, 4, 4, 32, 128, 1, 1, 0, 1}};
// dz without a row, and without a column; y has some.
const Case kEmptyCases[] = {{2, 0, 3, 5, 8, 3, 1, 2, 1}, {2, 3, 0, 5, 8, 3, 1, 2, 2}};
// On the CPU: groups of several blocks, of which the last is smaller; blocks of several strips; and
// images in bands, of which the last is smaller.
const Case kBlockCases[] = {{24, 4, 4, 3, 16, 3, 1, 1, 3},
                            {17, 3, 3, 5, 8, 1, 1, 0, 1},
                            {24, 12, 11, 3, 8, 3, 1, 1, 2},
                            {2, 41, 40, 40, 8, 3, 1, 1, 2},
                            {2, 41, 40, 8, 40, 3, 1, 1, 1}};

// For each group and channel of [N, …, C] the sum of f(element, slot) in long double, and what bounds
// its error.
struct Sums {
  Values sum, magnitude;
};
Sums sums_of(const Values& x, int64_t S, int64_t C,
             const std::function<long double(size_t, size_t)>& f) {
  const size_t group = x.size() / static_cast<size_t>(S), channels = static_cast<size_t>(C);
  std::vector<long double> sum(static_cast<size_t>(S) * channels), magnitude(sum);
  for (size_t i = 0; i < x.size(); ++i) {
    const size_t slot = i / group * channels + i % channels;
    sum[slot] += f(i, slot);
    magnitude[slot] += std::abs(f(i, slot));
  }
  return {Values(sum.begin(), sum.end()), Values(magnitude.begin(), magnitude.end())};
}

class Conv2dSumsTest : public KernelTest {
 protected:
  static TensorOptions wide() { return {arithmetic_dtype(dtype()), device()}; }

  // Returns whether they were taken.
  bool check_statistics(const Case& s, const Tensor& x, const Tensor& w, const std::string& which) {
    const Conv2dConfig config{.stride = s.stride, .padding = s.padding};
    bool taken = false;
    const std::vector<Tensor> results = run([&] {
      const Tensor y = poisoned(s.y()), mean = poisoned({s.S, s.OC}, wide().dtype),
                   var = poisoned({s.S, s.OC}, wide().dtype);
      taken = kernels().conv2d_forward_statistics(x, w, config, y, mean, var);
      return std::vector<Tensor>{y, mean, var};
    });
    const Tensor plain = poisoned(s.y());
    kernels().conv2d_forward(x, w, config, plain);
    const Values y = results[0].to_vector();
    expect_exactly(plain, y, "y" + which);
    if (!taken) return false;

    const double n = static_cast<double>(y.size()) / static_cast<double>(s.S * s.OC);
    Values mean = sums_of(y, s.S, s.OC, [&](size_t i, size_t) { return y[i]; }).sum;
    for (double& m : mean) m /= n;
    Values var = sums_of(y, s.S, s.OC, [&](size_t i, size_t slot) {
                   const long double deviation = static_cast<long double>(y[i]) - mean[slot];
                   return deviation * deviation;
                 }).sum;
    for (double& v : var) v /= n;
    Values least(mean), most(mean), mean_bound(mean), var_bound(mean);
    sums_of(y, s.S, s.OC, [&](size_t i, size_t slot) {
      least[slot] = std::min(least[slot], y[i]);
      most[slot] = std::max(most[slot], y[i]);
      return 0;
    });
    for (size_t i = 0; i < mean.size(); ++i) {
      const double range = most[i] - least[i];
      mean_bound[i] = eps() * (n * range + std::abs(mean[i]));
      var_bound[i] = (3 * n + 4) * eps() * range * range;
    }
    expect_within(results[1], mean, mean_bound, "mean" + which);
    expect_within(results[2], var, var_bound, "var" + which);
    return true;
  }

  bool check_gradient(const Case& s, const Tensor& x, const Tensor& w, const std::string& which) {
    const Conv2dConfig config{.stride = s.stride, .padding = s.padding};
    bool taken = false;
    const Tensor dy = uniform(s.y(), 3), h = uniform(x.shape(), 4),
                 center = uniform({s.S, s.C}, 5, 0, 1, wide().dtype);
    kernels().relu_forward(h, h);
    const std::vector<Tensor> results = run([&] {
      const Tensor dz = poisoned(x.shape()), sums = poisoned({s.S, 2, s.C}, wide().dtype);
      taken = kernels().conv2d_backward_data_sums(dy, w, config, h, x, center, dz, sums);
      return std::vector<Tensor>{dz, sums};
    });
    const Tensor plain = poisoned(x.shape());
    kernels().conv2d_backward_data(dy, w, config, plain);
    Values expected = plain.to_vector();
    const Values mask = h.to_vector(), vx = x.to_vector(), mean = center.to_vector();
    for (size_t i = 0; i < expected.size(); ++i) {
      if (taken && !(mask[i] > 0)) expected[i] = 0;
    }
    expect_exactly(results[0], expected, "dz" + which);
    if (!taken) return false;

    const Sums dz = sums_of(expected, s.S, s.C, [&](size_t i, size_t) { return expected[i]; });
    const Sums dz_x = sums_of(expected, s.S, s.C, [&](size_t i, size_t slot) {
      return expected[i] * (vx[i] - mean[slot]);
    });
    const double n = static_cast<double>(expected.size()) / static_cast<double>(s.S * s.C);
    Values sums, bound;
    for (size_t g = 0; g < static_cast<size_t>(s.S); ++g) {
      for (const Sums* one : {&dz, &dz_x}) {
        for (size_t c = 0; c < static_cast<size_t>(s.C); ++c) {
          const size_t slot = g * static_cast<size_t>(s.C) + c;
          sums.push_back(one->sum[slot]);
          bound.push_back((n + 3) * eps() * one->magnitude[slot]);
        }
      }
    }
    expect_within(results[1], sums, bound, "sums" + which);
    return true;
  }

  struct Taken {
    bool statistics, gradient;
  };
  void check_direct(const Case& s) {
    const Taken taken = check(s);
    if (device() != Device::cpu) return;
    EXPECT_EQ(taken.statistics, dtype() != DType::f64) << s.to_string();
    EXPECT_EQ(taken.gradient, dtype() != DType::f64 && s.stride == 1) << s.to_string();
  }
  Taken check(const Case& s) {
    const Tensor x = uniform({s.N, s.H, s.W, s.C}, 1, -1, 2);
    const Tensor w = uniform({s.kernel, s.kernel, s.C, s.OC}, 2, -1, 1, wide().dtype);
    return {check_statistics(s, x, w, " of " + s.to_string()),
            check_gradient(s, x, w, " of " + s.to_string())};
  }
};

TEST_P(Conv2dSumsTest, AreTakenDirectly) {
  for (const Case& s : kDirectCases) check_direct(s);
}

TEST_P(Conv2dSumsTest, OfNoPixelNoneAreTaken) {
  for (const Case& s : kEmptyCases) EXPECT_FALSE(check(s).gradient) << s.to_string();
}

TEST_P(Conv2dSumsTest, AreTakenByWinograd) {
  const bool winograd = device() == Device::cpu && dtype() != DType::f64;
  for (const Case& s : kWinogradCases) {
    const Taken taken = check(s);
    if (!winograd) continue;
    EXPECT_TRUE(taken.statistics) << s.to_string();
    EXPECT_TRUE(taken.gradient) << s.to_string();
  }
}

// Its squares agree in all their leading digits: E[y²] − E[y]² would be off by more than the variance.
TEST_P(Conv2dSumsTest, VarianceOfSmallNoiseOnALargeMean) {
  for (const Case& s : {Case{4, 8, 8, 16, 16, 3, 1, 1, 2}, Case{2, 40, 40, 16, 16, 3, 1, 1, 1},
                        Case{4, 8, 8, 3, 8, 3, 1, 1, 2}, Case{2, 40, 40, 3, 8, 3, 1, 1, 1}}) {
    const bool exact = dtype() != DType::bf16;  // bf16 would round the noise away
    const double mean = exact ? 1e3 : 8;
    const Tensor x = uniform({s.N, s.H, s.W, s.C}, 1, mean - 1, mean + 1);
    Tensor w = Tensor::zeros({s.kernel, s.kernel, s.C, s.OC}, wide());
    w.reshape({s.kernel * s.kernel, s.C * s.OC})
        .rows(s.kernel * s.kernel / 2, s.kernel * s.kernel / 2 + 1)
        .copy_from(uniform({1, s.C * s.OC}, 2, 0.5, 1, wide().dtype));
    check_statistics(s, x, w, " of " + s.to_string());
  }
}

class Conv2dSumsInBlocksTest : public Conv2dSumsTest {};

TEST_P(Conv2dSumsInBlocksTest, AreTakenDirectly) {
  for (const Case& s : kBlockCases) check_direct(s);
}

INSTANTIATE_TEST_SUITE_P(Cpu, Conv2dSumsInBlocksTest,
                         testing::Combine(testing::ValuesIn(cpu_kernels()),
                                          testing::Values(DType::f32, DType::bf16)),
                         name_of_case);

// In bf16 on a GPU: shapes of each kernel that takes the sums with it, as long as groups are whole
// tiles.
class Conv2dSumsInKernelsTest : public Conv2dSumsTest {
 protected:
  // What a GPU takes may depend on how many multiprocessors it has.
  void check(const Case& s, bool statistics, bool gradient) {
    const Taken taken = Conv2dSumsTest::check(s);
    if (device() != Device::cuda_emulated) return;
    EXPECT_EQ(taken.statistics, statistics) << s.to_string();
    EXPECT_EQ(taken.gradient, gradient) << s.to_string();
  }
  // By windows on wgmma alone; mma shares K by several blocks where there are few pixels.
  void check_windows(const Case& s) {
    const bool wgmma = std::get<0>(GetParam()).instructions == TensorCoreInstructions::wgmma;
    check(s, wgmma, wgmma);
  }
};

TEST_P(Conv2dSumsInKernelsTest, WindowsOfResidentWeights) {
  check_windows({8, 8, 8, 64, 64, 3, 1, 1, 4});
  check_windows({2, 8, 24, 64, 64, 3, 1, 1, 1});
  check_windows({1, 16, 8, 64, 64, 3, 1, 1, 1});
}

TEST_P(Conv2dSumsInKernelsTest, WindowsOfStreamedWeights) {
  check_windows({8, 8, 8, 128, 128, 3, 1, 1, 2});
  check_windows({2, 16, 16, 128, 256, 3, 1, 1, 2});
  check_windows({64, 4, 4, 128, 128, 3, 1, 1, 2});
}

// Of 32, 64 and 128 columns, forward and backward, with K for one block alone.
TEST_P(Conv2dSumsInKernelsTest, Products) {
  check({4, 8, 8, 16, 24, 3, 1, 1, 2}, true, true);
  check({8, 8, 8, 4, 64, 3, 1, 1, 2}, true, false);
  check({8, 8, 8, 8, 64, 1, 2, 0, 1}, true, false);
  check({8, 8, 8, 64, 16, 3, 1, 1, 2}, false, true);
  check({16, 4, 4, 8, 136, 3, 1, 1, 2}, true, false);
  check({4, 8, 8, 136, 16, 3, 1, 1, 1}, false, true);
}

// The stem: of tiles that a block has one after the other, and channels that are not all there.
TEST_P(Conv2dSumsInKernelsTest, Stem) {
  check({2, 32, 32, 3, 64, 3, 1, 1, 2}, true, false);
  check({8, 8, 8, 3, 24, 3, 1, 1, 2}, true, false);
}

// Where tiles reach into two groups, blocks share K, or channels are no whole pieces.
TEST_P(Conv2dSumsInKernelsTest, ShapesThatTakeNone) {
  check({3, 8, 8, 64, 64, 3, 1, 1, 3}, false, false);
  check({6, 8, 8, 64, 128, 3, 1, 1, 2}, false, false);
  check({6, 8, 8, 16, 64, 3, 1, 1, 2}, false, false);
  check({8, 4, 4, 64, 32, 3, 1, 1, 1}, false, false);
  check({2, 8, 8, 12, 20, 3, 1, 1, 1}, false, false);
}

INSTANTIATE_TEST_SUITE_P(Bf16, Conv2dSumsInKernelsTest,
                         testing::Combine(testing::ValuesIn(bf16_gpu_kernels()),
                                          testing::Values(DType::bf16)),
                         name_of_case);

MOCO_INSTANTIATE_KERNEL_TEST(Conv2dSumsTest);
MOCO_INSTANTIATE_BF16_TEST(Conv2dSumsTest);
MOCO_INSTANTIATE_TENSOR_CORE_TEST(Conv2dSumsTest);

}  // namespace
}  // namespace mocograd
