// bf16: its rounding, and the kernels that take it against themselves in f32 on the same numbers,
// of which they are the rounded results.
#include <bit>

#include "cpu/conv_algorithm.h"
#include "kernel_cases.h"

namespace mocograd {
namespace {

float from_bits(uint32_t word) {
  return std::bit_cast<float>(word);
}

TEST(BFloat16Test, RoundsToNearestAndTiesToEven) {
  for (const auto& [from, to] : {std::pair{0x3f800000u, 0x3f80u},  // 1
                                 {0x3f807fffu, 0x3f80u},           // below the middle
                                 {0x3f808000u, 0x3f80u},           // the middle, to even
                                 {0x3f808001u, 0x3f81u},           // above it
                                 {0x3f818000u, 0x3f82u},           // the middle, to even
                                 {0xbf818000u, 0xbf82u},
                                 {0x00000000u, 0x0000u},
                                 {0x80000000u, 0x8000u},  // −0
                                 {0x00008001u, 0x0001u},  // subnormal
                                 {0x7f7fffffu, 0x7f80u},  // beyond the largest: infinity
                                 {0x7f800000u, 0x7f80u},
                                 {0xff800000u, 0xff80u}})
    EXPECT_EQ(BFloat16(from_bits(from)).bits, to) << std::hex << from;
  for (uint32_t nan : {0x7fc00000u, 0x7f800001u, 0xffffffffu})
    EXPECT_TRUE(std::isnan(static_cast<float>(BFloat16(from_bits(nan))))) << std::hex << nan;
}

TEST(BFloat16Test, EveryNumberIsExactAsAFloat) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    BFloat16 x;
    x.bits = static_cast<uint16_t>(bits);
    if (!std::isnan(static_cast<float>(x))) {
      ASSERT_EQ(BFloat16(static_cast<float>(x)).bits, bits);
    }
  }
}

class Bf16KernelTest : public KernelTest {
 protected:
  ~Bf16KernelTest() override { set_conv_algorithm(ConvAlgorithm::automatic); }

  using Kernel = std::function<std::vector<Tensor>(const std::vector<Tensor>& activations)>;

  // Activations of these numbers in bf16.
  Tensor activation(const Shape& shape, uint32_t name) const {
    return uniform(shape, name).to(DType::bf16);
  }

  // `kernel` returns its results, first those that are activations. A bf16 result is the f32 one,
  // rounded; but where the two are `other_sums`, taken in another order, and on a GPU, whose compiler
  // may contract them differently, there is an error of `error` more.
  static void check(const std::vector<Tensor>& activations, const Kernel& kernel, double error,
                    const std::string& what, bool other_sums = false) {
    const std::vector<Tensor> actual = run([&] { return kernel(activations); });
    std::vector<Tensor> in_f32;
    for (const Tensor& x : activations) in_f32.push_back(x.defined() ? x.to(DType::f32) : Tensor());
    const std::vector<Tensor> expected = run([&] { return kernel(in_f32); });
    for (size_t i = 0; i < actual.size(); ++i) {
      const std::string name = what + ", result " + std::to_string(i);
      if (device() != Device::cuda && !other_sums) {
        expect_exactly(actual[i], expected[i].to(actual[i].dtype()).to_vector(), name);
        continue;
      }
      const Values values = expected[i].to_vector();
      Values bound(values.size());
      const double rounding = actual[i].dtype() == DType::bf16 ? 0x1p-8 : 0;
      for (size_t j = 0; j < bound.size(); ++j)
        bound[j] = error + rounding * (std::abs(values[j]) + error);
      expect_within(actual[i], values, bound, name);
    }
  }
  static Tensor like(const Tensor& activation, const Shape& shape) {
    return poisoned(shape, activation.dtype());
  }
};

TEST_P(Bf16KernelTest, Convert) {
  for (int64_t n : {1, 15, 16, 17, 16385}) {
    const Tensor x = uniform({n}, 1);
    const Values values = x.to_vector();
    Values rounded(values.size());
    for (size_t i = 0; i < values.size(); ++i) rounded[i] = BFloat16(static_cast<float>(values[i]));
    const Tensor y = x.to(DType::bf16);
    expect_exactly(y, rounded, "bf16");
    expect_exactly(y.to(DType::f32), rounded, "and back");
  }
}

TEST_P(Bf16KernelTest, AddAndRelu) {
  for (int64_t n : {1, 15, 16, 17, 16385}) {
    check(
        {activation({n}, 1), activation({n}, 2)},
        [&](const std::vector<Tensor>& in) {
          const Tensor sum = like(in[0], {n}), y = like(in[0], {n}), dx = like(in[0], {n});
          kernels().add(in[0], in[1], sum);
          kernels().relu_forward(in[0], y);
          kernels().relu_backward(y, in[1], dx);
          return std::vector<Tensor>{sum, y, dx};
        },
        0, "n = " + std::to_string(n));
  }
}

TEST_P(Bf16KernelTest, Convolutions) {
  struct Case {
    int64_t N, H, W, C, OC, K, stride;
  };
  for (const ConvAlgorithm algorithm : {ConvAlgorithm::direct, ConvAlgorithm::automatic}) {
    set_conv_algorithm(algorithm);
    for (const Case& s : {Case{1, 1, 1, 1, 1, 1, 1},
                          {2, 5, 7, 3, 5, 3, 1},
                          {2, 9, 8, 3, 17, 3, 1},
                          {2, 8, 8, 16, 32, 3, 2},
                          {2, 7, 9, 5, 33, 3, 2},
                          {2, 8, 8, 16, 48, 1, 2},
                          {3, 8, 8, 24, 40, 1, 1},
                          {2, 8, 7, 16, 48, 3, 1},
                          {1, 16, 16, 64, 64, 3, 1},
                          {2, 4, 4, 144, 128, 3, 1}}) {
      const Conv2dConfig config{.stride = s.stride, .padding = s.K / 2};
      const int64_t OH = (s.H + 2 * config.padding - s.K) / s.stride + 1;
      const int64_t OW = (s.W + 2 * config.padding - s.K) / s.stride + 1;
      const Shape in_shape{s.N, s.H, s.W, s.C}, out_shape{s.N, OH, OW, s.OC};
      // The weights are numbers of bf16, too, which tensor cores multiply exactly.
      const Tensor w = uniform({s.K, s.K, s.C, s.OC}, 2).to(DType::bf16).to(DType::f32);
      const int64_t terms = std::max({s.K * s.K * s.C, s.K * s.K * s.OC, s.N * OH * OW});
      check(
          {activation(in_shape, 1), activation(out_shape, 3)},
          [&](const std::vector<Tensor>& in) {
            const Tensor y = like(in[0], out_shape), dx = like(in[0], in_shape),
                         dw = poisoned(w.shape(), DType::f32);
            kernels().conv2d_forward(in[0], w, config, y);
            kernels().conv2d_backward_data(in[1], w, config, dx);
            kernels().conv2d_backward_weight(in[0], in[1], config, dw);
            return std::vector<Tensor>{y, dx, dw};
          },
          2 * static_cast<double>(terms * terms) * 0x1p-24,
          "x " + in_shape.to_string() + ", y " + out_shape.to_string(), device() != Device::cpu);
    }
  }
}

TEST_P(Bf16KernelTest, BatchNorm) {
  struct Case {
    int64_t S, n, C;
  };
  for (const Case& s : {Case{1, 5, 3},
                        {2, 67, 17},
                        {2, 300, 64},
                        {1, 5003, 64},
                        {3, 61, 129},
                        {1, 1, 8},
                        {2, 9, 7},
                        {8, 257, 24},
                        {2, 65, 264}}) {
    for (bool relu : {false, true}) {
      const Shape shape{s.S * s.n, 1, s.C};
      const Tensor gamma = uniform({s.C}, 2, 0.5, 1.5), beta = uniform({s.C}, 3);
      const BatchNormConfig config{.relu = relu};
      check(
          {activation(shape, 1), activation(shape, 4), activation(shape, 5)},
          [&](const std::vector<Tensor>& in) {
            const Tensor mean = poisoned({s.S, s.C}, DType::f32),
                         var = poisoned({s.S, s.C}, DType::f32), y = like(in[0], shape),
                         dx = like(in[0], shape), dresidual = like(in[0], shape),
                         dgamma = poisoned({s.C}, DType::f32), dbeta = poisoned({s.C}, DType::f32);
            kernels().batch_norm_forward(in[0], gamma, beta, in[1], config, mean, var, y);
            // of a forward pass that both types share
            kernels().batch_norm_backward(in[2], Tensor(), in[0], in[1], gamma, config, mean, var,
                                          Tensor(), dx, dgamma, dbeta, dresidual);
            return std::vector<Tensor>{y, dx, dresidual, mean, var, dgamma, dbeta};
          },
          1e-3, "S, n, C = " + Shape{s.S, s.n, s.C}.to_string());
    }
  }
}

// Of a gradient in two parts: what comes of their sum, rounded as `add` rounds it.
TEST_P(Bf16KernelTest, BatchNormAddsTheTwoPartsOfItsGradient) {
  for (const Shape& shape : {Shape{6, 33, 64}, Shape{4, 5, 7}}) {
    const int64_t C = shape[2];
    const Tensor x = activation(shape, 1), y = activation(shape, 2), part = activation(shape, 3),
                 more = activation(shape, 4), both = like(x, shape);
    const Tensor gamma = uniform({C}, 5, 0.5, 1.5), mean = uniform({2, C}, 6),
                 var = uniform({2, C}, 7, 0.5, 2);
    kernels().add(part, more, both);
    for (const bool residual : {false, true}) {
      const auto backward = [&](const Tensor& dy, const Tensor& more_dy) {
        return run([&] {
          const Tensor dx = like(x, shape), dresidual = residual ? like(x, shape) : Tensor(),
                       dgamma = poisoned({C}, DType::f32), dbeta = poisoned({C}, DType::f32);
          kernels().batch_norm_backward(dy, more_dy, x, y, gamma, {.relu = true}, mean, var,
                                        Tensor(), dx, dgamma, dbeta, dresidual);
          std::vector<Tensor> written = {dx, dgamma, dbeta};
          if (residual) written.push_back(dresidual);
          return written;
        });
      };
      const std::vector<Tensor> in_two = backward(part, more), in_one = backward(both, Tensor());
      for (size_t i = 0; i < in_one.size(); ++i)
        expect_exactly(in_two[i], in_one[i].to_vector(), "result " + std::to_string(i));
    }
  }
}

TEST_P(Bf16KernelTest, BatchNormOfGivenStatistics) {
  for (const int64_t S : {1, 3}) {
    const int64_t C = 19;
    const Shape shape{S * 37, C};
    const Tensor gamma = uniform({C}, 2, 0.5, 1.5), beta = uniform({C}, 3),
                 mean = uniform({S, C}, 4), var = uniform({S, C}, 5, 0.5, 2);
    const Values mean_before = mean.to_vector(), var_before = var.to_vector();
    check(
        {activation(shape, 1)},
        [&](const std::vector<Tensor>& in) {
          const Tensor y = like(in[0], shape);
          kernels().batch_norm_forward(in[0], gamma, beta, Tensor(), {.batch_statistics = false},
                                       mean, var, y);
          return std::vector<Tensor>{y};
        },
        1e-3, "S = " + std::to_string(S));
    expect_exactly(mean, mean_before, "mean");
    expect_exactly(var, var_before, "var");
  }
}

TEST_P(Bf16KernelTest, Pools) {
  for (const Shape& shape : {Shape{1, 1, 1, 1}, {2, 5, 7, 17}, {2, 8, 8, 64}}) {
    const Shape half{shape[0], (shape[1] - 1) / 2 + 1, (shape[2] - 1) / 2 + 1, shape[3]};
    const Shape row{shape[0], shape[3]};
    check(
        {activation(shape, 1), activation(half, 2), activation(row, 3)},
        [&](const std::vector<Tensor>& in) {
          const Tensor y = like(in[0], half), tap = poisoned(half, DType::u8),
                       dx = like(in[0], shape), average = like(in[0], row),
                       spread = like(in[0], shape);
          kernels().max_pool_forward(in[0], y, tap);
          kernels().max_pool_backward(in[1], tap, dx);
          kernels().global_avg_pool_forward(in[0], average);
          kernels().global_avg_pool_backward(in[2], spread);
          return std::vector<Tensor>{y, dx, average, spread, tap};
        },
        0x1p-20, "x " + shape.to_string());
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, Bf16KernelTest,
                         testing::Combine(testing::ValuesIn(all_kernels()),
                                          testing::Values(DType::f32)),
                         name_of_case);

}  // namespace
}  // namespace mocograd
