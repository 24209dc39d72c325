// Winograd's three passes against the direct convolution in double.
#include "cpu/conv_algorithm.h"
#include "kernel_cases.h"

namespace mocograd {
namespace {

struct Case {
  int64_t N, H, W, C, OC;
};

// max |actual − expected| / max |expected|, and the same of the root mean squares.
struct Deviation {
  double largest = 0, rms = 0;
};

Deviation deviation(const Tensor& actual, const Tensor& expected) {
  const Values a = actual.to_vector(), e = expected.to_vector();
  double error = 0, size = 0, error2 = 0, size2 = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(a[i] - e[i]);
    if (!(difference <= 1e30)) return {kNaN, kNaN};
    error = std::max(error, difference);
    size = std::max(size, std::abs(e[i]));
    error2 += difference * difference;
    size2 += e[i] * e[i];
  }
  return {error / size, std::sqrt(error2 / size2)};
}

class WinogradTest : public KernelTest {
 protected:
  ~WinogradTest() override { set_conv_algorithm(ConvAlgorithm::automatic); }

  void check(const Case& s) {
    const Conv2dConfig config{.stride = 1, .padding = 1};
    const Tensor x = uniform({s.N, s.H, s.W, s.C}, 1), w = uniform({3, 3, s.C, s.OC}, 2);
    const Tensor dy = uniform({s.N, s.H, s.W, s.OC}, 3);
    const auto passes = [&](const Tensor& x, const Tensor& w, const Tensor& dy) {
      const Tensor y = poisoned(dy.shape(), x.dtype()), dx = poisoned(x.shape(), x.dtype());
      const Tensor dw = poisoned(w.shape(), x.dtype());
      kernels().conv2d_forward(x, w, config, y);
      kernels().conv2d_backward_data(dy, w, config, dx);
      kernels().conv2d_backward_weight(x, dy, config, dw);
      return std::vector<Tensor>{y, dx, dw};
    };
    const std::vector<Tensor> actual = run([&] { return passes(x, w, dy); });
    const std::vector<Tensor> expected =
        passes(x.to(DType::f64), w.to(DType::f64), dy.to(DType::f64));
    const char* names[] = {"y", "dx", "dw"};
    for (int i = 0; i < 3; ++i) {
      const Deviation d = deviation(actual[i], expected[i]);
      EXPECT_TRUE(d.largest < 1e-5) << names[i] << d.largest << " of " << x.shape().to_string();
    }
  }
};

TEST_P(WinogradTest, Shapes) {
  if (dtype() == DType::f64) GTEST_SKIP();
  for (int64_t H : {4, 7, 8, 9})
    for (int64_t W : {4, 7, 8, 12}) check({2, H, W, 16, 16});
  for (int64_t C : {16, 32, 48, 80})
    for (int64_t OC : {16, 32, 48, 96}) check({1, 8, 7, C, OC});
  check({3, 16, 16, 64, 64});
  check({2, 8, 8, 256, 256});
  check({64, 4, 4, 64, 64});
  check({2, 4, 4, 512, 512});
}

MOCO_INSTANTIATE_KERNEL_TEST(WinogradTest);

}  // namespace
}  // namespace mocograd
