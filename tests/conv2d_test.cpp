// The three convolution kernels against plain loops in double, on shapes of 1, primes and around
// the tiles' sizes, with every stride and padding that changes the path through the code. Always
// directly: winograd_test.cpp looks at the other algorithm.
#include "cpu/conv_algorithm.h"
#include "kernel_cases.h"

namespace mocograd {
namespace {

struct Case {
  int64_t N, H, W, C, OC, KH, KW, stride, padding;

  int64_t OH() const { return (H + 2 * padding - KH) / stride + 1; }
  int64_t OW() const { return (W + 2 * padding - KW) / stride + 1; }
  std::string to_string() const {
    return "x " + Shape{N, H, W, C}.to_string() + ", w " + Shape{KH, KW, C, OC}.to_string() +
           ", stride " + std::to_string(stride) + ", padding " + std::to_string(padding);
  }
};

// Calls f(index in x, in w, in y) for every product of the convolution.
template <class F>
void for_each_product(const Case& s, const F& f) {
  for (int64_t n = 0; n < s.N; ++n)
    for (int64_t oh = 0; oh < s.OH(); ++oh)
      for (int64_t ow = 0; ow < s.OW(); ++ow)
        for (int64_t kh = 0; kh < s.KH; ++kh)
          for (int64_t kw = 0; kw < s.KW; ++kw) {
            const int64_t h = oh * s.stride - s.padding + kh, w = ow * s.stride - s.padding + kw;
            if (h < 0 || h >= s.H || w < 0 || w >= s.W) continue;
            for (int64_t c = 0; c < s.C; ++c)
              for (int64_t oc = 0; oc < s.OC; ++oc)
                f(((n * s.H + h) * s.W + w) * s.C + c, ((kh * s.KW + kw) * s.C + c) * s.OC + oc,
                  ((n * s.OH() + oh) * s.OW() + ow) * s.OC + oc);
          }
}

class Conv2dTest : public KernelTest {
 protected:
  Conv2dTest() { set_conv_algorithm(ConvAlgorithm::direct); }
  ~Conv2dTest() override { set_conv_algorithm(ConvAlgorithm::automatic); }

  // A sum of n products by any order of additions errs by at most about n·eps·Σ|terms|; then it is
  // rounded to be stored. `factors`: what the factors' rounding costs a product.
  void compare(const Tensor& actual, const Values& sum, const Values& magnitude, int64_t terms,
               double factors, const std::string& what) {
    const double storage = actual.dtype() == DType::bf16 ? storage_error() : 0;
    Values bound(sum.size());
    for (size_t i = 0; i < sum.size(); ++i) {
      const double error = (static_cast<double>(terms + 1) * eps() + factors) * magnitude[i];
      bound[i] = error + storage * (std::abs(sum[i]) + error);
    }
    expect_within(actual, sum, bound, what);
  }

  // The same numbers among NaN, of which a product by zero, too, is NaN.
  static Tensor among_nan(const Tensor& x) {
    const int64_t n = x.numel(), margin = (n + 63) / 64 * 64;
    const Tensor y = poisoned({n + 2 * margin}, x.dtype()).rows(margin, margin + n);
    y.copy_from(x.reshape({n}));
    return y.reshape(x.shape());
  }

  void check(const Case& s) {
    const Conv2dConfig config{.stride = s.stride, .padding = s.padding};
    const Tensor x = uniform({s.N, s.H, s.W, s.C}, 1);
    const Tensor w =
        among_nan(uniform({s.KH, s.KW, s.C, s.OC}, 2, -1, 1, arithmetic_dtype(dtype())));
    const Tensor dy = uniform({s.N, s.OH(), s.OW(), s.OC}, 3);
    const std::vector<Tensor> results = run([&] {
      const Tensor y = poisoned(dy.shape()), dx = poisoned(x.shape()),
                   dw = poisoned(w.shape(), w.dtype());
      kernels().conv2d_forward(x, w, config, y);
      kernels().conv2d_backward_data(dy, w, config, dx);
      kernels().conv2d_backward_weight(x, dy, config, dw);
      return std::vector<Tensor>{y, dx, dw};
    });
    const Values vx = x.to_vector(), vw = w.to_vector(), vdy = dy.to_vector();
    Values y(vdy.size()), dx(vx.size()), dw(vw.size());
    Values y_magnitude = y, dx_magnitude = dx, dw_magnitude = dw;
    const auto add = [](Values& sum, Values& magnitude, int64_t i, double term) {
      sum[i] += term;
      magnitude[i] += std::abs(term);
    };
    for_each_product(s, [&](int64_t ix, int64_t iw, int64_t iy) {
      add(y, y_magnitude, iy, vx[ix] * vw[iw]);
      add(dx, dx_magnitude, ix, vdy[iy] * vw[iw]);
      add(dw, dw_magnitude, iw, vx[ix] * vdy[iy]);
    });
    // x and dy are numbers of bf16; the weights are rounded to it before they are multiplied.
    const double rounded_w = product_error() + storage_error();
    const std::string which = " of " + s.to_string();
    compare(results[0], y, y_magnitude, s.KH * s.KW * s.C, rounded_w, "y" + which);
    compare(results[1], dx, dx_magnitude, s.KH * s.KW * s.OC, rounded_w, "dx" + which);
    compare(results[2], dw, dw_magnitude, s.N * s.OH() * s.OW(), product_error(), "dw" + which);
  }
};

TEST_P(Conv2dTest, ShapesOfOne) {
  check({1, 1, 1, 1, 1, 1, 1, 1, 0});
  check({1, 1, 1, 1, 1, 3, 3, 1, 1});
  check({1, 1, 1, 5, 7, 3, 3, 2, 1});
  check({3, 1, 1, 2, 1, 1, 1, 2, 0});
}

TEST_P(Conv2dTest, NothingToMultiply) {
  for (int64_t stride : {1, 2}) {
    check({0, 4, 5, 3, 8, 3, 3, stride, 1});
    check({2, 4, 5, 0, 8, 3, 3, stride, 1});
    check({2, 4, 5, 3, 0, 3, 3, stride, 1});
    check({2, 0, 5, 3, 8, 3, 3, stride, 2});
  }
}

TEST_P(Conv2dTest, EveryKernelStrideAndPadding) {
  for (int64_t kernel : {1, 2, 3, 5, 7})
    for (int64_t stride : {1, 2, 3})
      for (int64_t padding : {0, 1, 2, 3})
        for (int64_t C : {3, 4})  // as an image, and as any other
          if (7 + 2 * padding >= kernel) check({2, 7, 9, C, 5, kernel, kernel, stride, padding});
}

TEST_P(Conv2dTest, KernelsThatAreNotSquare) {
  check({2, 6, 7, 3, 4, 1, 3, 1, 1});
  check({2, 7, 6, 3, 4, 3, 1, 2, 1});
  check({1, 5, 4, 2, 3, 2, 5, 2, 2});
}

TEST_P(Conv2dTest, OutputChannelsAroundTheTiles) {
  for (int64_t OC : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 49, 64, 65})
    check({1, 3, 3, 3, OC, 3, 3, 1, 1});
}

TEST_P(Conv2dTest, InputChannelsAroundTheTiles) {
  for (int64_t C : {1, 2, 4, 5, 7, 8, 12, 13, 16, 17, 31, 32, 33})
    check({1, 3, 4, C, 5, 3, 3, 1, 1});
}

TEST_P(Conv2dTest, PixelsAroundTheTiles) {
  for (int64_t W : {2, 3, 4, 5, 6, 7, 11, 12, 13, 23, 24, 25}) check({1, 1, W, 2, 3, 1, 1, 1, 0});
  for (int64_t W : {3, 5, 11, 12, 13}) check({2, 3, W, 2, 3, 3, 3, 1, 1});
  for (int64_t W : {3, 4, 5, 6, 7, 8, 25}) check({2, W, W, 2, 3, 3, 3, 2, 1});
}

TEST_P(Conv2dTest, SeveralBlocks) {
  check({5, 16, 16, 32, 4, 3, 3, 1, 1});  // whole images, the last block smaller
  check({2, 40, 40, 32, 3, 3, 3, 1, 1});  // bands of an image
  check({2, 41, 40, 33, 2, 3, 3, 2, 1});
  check({3, 64, 5, 64, 2, 1, 1, 1, 0});
  check({1, 3, 129, 65, 130, 3, 3, 2, 1});  // dw in blocks of rows and columns, y in parts
}

// Of dw: several images in a part of the pixels, parts that begin within one, one vector and more.
TEST_P(Conv2dTest, SeveralImages) {
  check({7, 11, 9, 3, 20, 3, 3, 1, 1});
  check({6, 9, 30, 3, 48, 3, 3, 2, 0});
}

// Tiles of 128 rows and 32, 64 or 128 columns, steps of 64 channels, in pieces of 8 (bf16) or 4 (tf32).
TEST_P(Conv2dTest, TilesOfTheTensorCores) {
  check({1, 11, 13, 72, 136, 3, 3, 1, 1});
  check({3, 9, 9, 72, 136, 3, 3, 2, 1});
  check({2, 12, 12, 8, 64, 3, 3, 1, 1});
  check({2, 12, 12, 64, 8, 1, 1, 1, 0});
  check({2, 10, 10, 40, 33, 3, 3, 1, 1});
  check({2, 9, 8, 12, 20, 3, 3, 2, 1});
  check({3, 20, 20, 24, 65, 1, 1, 1, 0});
  check({1, 23, 23, 3, 64, 3, 3, 1, 1});  // from here on blocks share the weight gradient's pixels
  check({3, 16, 16, 64, 72, 1, 1, 1, 0});
  check({5, 16, 15, 24, 136, 3, 3, 2, 1});
}

// One launch computes the classes into which dx falls with a stride: of several tiles each, not all
// of as many, of terms that are no whole steps, and without taps where the kernel is smaller than the
// stride.
TEST_P(Conv2dTest, ClassesOfTheDataGradient) {
  check({2, 23, 21, 136, 12, 3, 3, 2, 1});
  check({2, 19, 22, 40, 20, 5, 5, 3, 2});
  check({3, 25, 23, 72, 8, 1, 1, 2, 0});
  check({3, 20, 23, 8, 72, 2, 2, 3, 1});
  check({3, 40, 13, 3, 5, 2, 3, 2, 0});
  check({2, 3, 2, 5, 3, 1, 1, 4, 0});    // some have no pixels
  check({1, 26, 27, 5, 3, 3, 3, 5, 1});  // 25, more than a launch takes
  check({1, 23, 24, 5, 3, 6, 5, 5, 0});
}

TEST_P(Conv2dTest, LayersOfTheNetworks) {
  check({2, 8, 8, 16, 16, 3, 3, 1, 1});
  check({2, 8, 8, 16, 32, 3, 3, 2, 1});
  check({2, 8, 8, 16, 32, 1, 1, 2, 0});
  check({1, 8, 8, 64, 64, 3, 3, 1, 1});
  check({1, 32, 32, 3, 16, 7, 7, 2, 3});
}

MOCO_INSTANTIATE_KERNEL_TEST(Conv2dTest);
MOCO_INSTANTIATE_BF16_TEST(Conv2dTest);
MOCO_INSTANTIATE_TENSOR_CORE_TEST(Conv2dTest);

}  // namespace
}  // namespace mocograd
