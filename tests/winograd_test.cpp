// Winograd's three passes in f32 against the direct convolution in double (which conv2d_test.cpp
// compares with plain loops), on images and channels around its tiles, blocks and panels.
#include "cpu/conv_algorithm.h"
#include "kernel_cases.h"

namespace mocograd {
namespace {

struct Case {
  int64_t N, H, W, C, OC, stride = 1;

  Conv2dConfig config() const { return {.stride = stride, .padding = 1}; }
  std::string to_string() const {
    return "x " + x().to_string() + ", OC " + std::to_string(OC) + ", stride " +
           std::to_string(stride);
  }
  Shape x() const { return {N, H, W, C}; }
  Shape w() const { return {3, 3, C, OC}; }
  Shape y() const { return {N, (H - 1) / stride + 1, (W - 1) / stride + 1, OC}; }
  int64_t tiles() const { return N * ((y()[1] + 3) / 4) * ((y()[2] + 3) / 4); }
};

// Errors of one pass: the largest over the largest result, and the ratio of the root mean squares,
// which is NaN where a result is.
struct Errors {
  double largest = 0, rms = 0;
};

Errors errors_of(const Tensor& actual, const Tensor& expected) {
  const Values a = actual.to_vector(), e = expected.to_vector();
  double error = 0, size = 0, error2 = 0, size2 = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(a[i] - e[i]);
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

  // A tensor between two images of NaN, `wide` holding them all.
  static Tensor between_nan(const Shape& shape, DType dtype, Tensor& wide) {
    wide = poisoned({shape[0] + 2, shape[1], shape[2], shape[3]}, dtype);
    return wide.rows(1, shape[0] + 1);
  }
  static Tensor between_nan(const Tensor& x) {
    Tensor wide;
    const Tensor inside = between_nan(x.shape(), x.dtype(), wide);
    inside.copy_from(x);
    return inside;
  }
  static void expect_nan_around(const Tensor& wide, const std::string& what) {
    for (int64_t image : {int64_t{0}, wide.dim(0) - 1}) {
      for (double value : wide.rows(image, image + 1).to_vector())
        ASSERT_TRUE(std::isnan(value)) << what << " is written beyond its end";
    }
  }

  // y, dx, dw, written to memory that held NaN, from x and dy that lie between NaN.
  std::vector<Tensor> passes(const Case& s, const Tensor& x, const Tensor& w,
                             const Tensor& dy) const {
    const Tensor x_inside = between_nan(x), dy_inside = between_nan(dy);
    Tensor y_wide, dx_wide;
    const Tensor y = between_nan(dy.shape(), x.dtype(), y_wide);
    const Tensor dx = between_nan(x.shape(), x.dtype(), dx_wide);
    const Tensor dw = poisoned(w.shape(), x.dtype());
    kernels().conv2d_forward(x_inside, w, s.config(), y);
    kernels().conv2d_backward_data(dy_inside, w, s.config(), dx);
    kernels().conv2d_backward_weight(x_inside, dy_inside, s.config(), dw);
    expect_nan_around(y_wide, "y");
    expect_nan_around(dx_wide, "dx");
    return {y, dx, dw};
  }

  // docs/WINOGRAD.md: the transforms amplify rounding by a constant, and a sum of n products errs
  // like a random walk of n steps. The factors are two to three times what was measured.
  static void expect_close(const Tensor& actual, const Tensor& expected, int64_t n,
                           const std::string& what) {
    const double bound = 0x1p-24 * (10 + 3 * std::sqrt(static_cast<double>(n)));
    const Errors errors = errors_of(actual, expected);
    EXPECT_TRUE(errors.rms <= bound) << what << ": " << errors.rms << " > " << bound;
    EXPECT_TRUE(errors.largest <= 2 * bound)
        << what << ": " << errors.largest << " > " << 2 * bound;
  }

  void check(const Case& s) {
    const Tensor x = uniform(s.x(), 1), w = uniform(s.w(), 2), dy = uniform(s.y(), 3);
    const std::vector<Tensor> actual = run([&] { return passes(s, x, w, dy); });
    const std::vector<Tensor> expected =
        passes(s, x.to(DType::f64), w.to(DType::f64), dy.to(DType::f64));
    expect_close(actual[0], expected[0], s.C, "y of " + s.to_string());
    expect_close(actual[1], expected[1], s.OC, "dx of " + s.to_string());
    expect_close(actual[2], expected[2], s.tiles(), "dw of " + s.to_string());
  }

  // Whether the rule takes Winograd: the results differ from the direct ones in some bit.
  bool differs_from_direct(const Case& s) {
    const Tensor x = uniform(s.x(), 1), w = uniform(s.w(), 2), dy = uniform(s.y(), 3);
    const std::vector<Tensor> automatic = passes(s, x, w, dy);
    set_conv_algorithm(ConvAlgorithm::direct);
    const std::vector<Tensor> direct = passes(s, x, w, dy);
    set_conv_algorithm(ConvAlgorithm::automatic);
    int different = 0;
    for (size_t i = 0; i < direct.size(); ++i)
      different +=
          std::memcmp(direct[i].raw_bytes(), automatic[i].raw_bytes(), direct[i].bytes()) != 0;
    EXPECT_TRUE(different == 0 || different == 3) << s.to_string() << ": only in some passes";
    return different > 0;
  }

  // Of a shape that the rule has to take.
  void check_winograd(const Case& s) {
    EXPECT_TRUE(differs_from_direct(s)) << s.to_string();
    check(s);
  }
};

TEST_P(WinogradTest, ImagesAroundTheTiles) {
  for (int64_t H : {3, 4, 6, 7, 8, 9, 11})
    for (int64_t W : {3, 4, 7, 8, 11, 13}) check({12, H, W, 16, 16});
}

TEST_P(WinogradTest, ImagesOfOneRowOfTiles) {
  check({9, 3, 40, 16, 16});
  check({9, 40, 3, 16, 16});
  check({1, 4, 64, 16, 16});
}

TEST_P(WinogradTest, ChannelsAroundThePanels) {
  for (int64_t C : {16, 32, 48})
    for (int64_t OC : {16, 32, 48, 80}) check({2, 8, 7, C, OC});
}

TEST_P(WinogradTest, ChannelsAroundThePieces) {
  check({1, 8, 8, 112, 16});
  check({1, 8, 8, 128, 144});
  check({1, 8, 8, 144, 128});
  check({1, 8, 8, 272, 16});
  check({1, 8, 8, 16, 272});
}

TEST_P(WinogradTest, TilesAroundTheBlocks) {
  for (int64_t N : {4, 5, 6, 7, 13, 14, 15, 23, 27, 28, 29, 30, 57}) check({N, 4, 4, 16, 16});
}

TEST_P(WinogradTest, SeveralChunksOfTiles) {
  check({23, 28, 27, 16, 16});
  check({9, 16, 32, 32, 16});
}

TEST_P(WinogradTest, LayersOfTheNetworks) {
  check({2, 32, 32, 16, 16});
  check({2, 16, 16, 128, 128});
  check({2, 8, 8, 256, 256});
  check({4, 4, 4, 512, 512});
}

TEST_P(WinogradTest, StrideTwoOnImagesAroundTheTiles) {
  for (int64_t H : {7, 8, 15, 21, 22, 29})
    for (int64_t W : {8, 15, 16, 21, 30}) check_winograd({12, H, W, 16, 16, 2});
}

TEST_P(WinogradTest, StrideTwoOnChannelsAndBlocks) {
  for (int64_t C : {16, 32, 48})
    for (int64_t OC : {16, 32, 80}) check_winograd({5, 8, 15, C, OC, 2});
  check_winograd({9, 8, 8, 144, 272, 2});
  check_winograd({9, 8, 8, 272, 144, 2});
  for (int64_t N : {13, 14, 15, 29, 57}) check_winograd({N, 8, 8, 16, 16, 2});
  check_winograd({12, 64, 64, 16, 16, 2});  // two chunks of tiles for dw
}

TEST_P(WinogradTest, StrideTwoLayersOfTheNetworks) {
  check_winograd({2, 32, 32, 16, 32, 2});
  check_winograd({2, 32, 32, 64, 128, 2});
  check_winograd({3, 16, 16, 128, 256, 2});
  check_winograd({9, 8, 8, 256, 512, 2});
}

TEST_P(WinogradTest, FollowsTheRule) {
  EXPECT_TRUE(differs_from_direct({4, 4, 4, 16, 16}));
  EXPECT_TRUE(differs_from_direct({1, 32, 32, 64, 64}));
  EXPECT_FALSE(differs_from_direct({3, 4, 4, 16, 16}));  // too few tiles for the weights' transform
  EXPECT_FALSE(differs_from_direct({50, 2, 2, 16, 16}));  // tiles mostly outside of the image
  EXPECT_FALSE(differs_from_direct({50, 5, 5, 16, 16}));
  EXPECT_FALSE(differs_from_direct({4, 8, 8, 8, 16}));  // not whole vectors
  EXPECT_FALSE(differs_from_direct({4, 8, 8, 16, 24}));
  EXPECT_TRUE(differs_from_direct({9, 8, 8, 16, 16, 2}));
  EXPECT_FALSE(differs_from_direct({8, 8, 8, 16, 16, 2}));
  EXPECT_FALSE(differs_from_direct({12, 9, 9, 16, 16, 2}));
  EXPECT_FALSE(differs_from_direct({12, 12, 12, 16, 16, 3}));
}

TEST_P(WinogradTest, DoublesAreDirect) {
  const Tensor x = uniform({4, 8, 8, 16}, 1).to(DType::f64);
  const Tensor w = uniform({3, 3, 16, 16}, 2).to(DType::f64);
  const Case s{4, 8, 8, 16, 16};
  const std::vector<Tensor> automatic = passes(s, x, w, x);
  set_conv_algorithm(ConvAlgorithm::direct);
  const std::vector<Tensor> direct = passes(s, x, w, x);
  for (size_t i = 0; i < direct.size(); ++i)
    expect_exactly(automatic[i], direct[i].to_vector(), "");
}

INSTANTIATE_TEST_SUITE_P(Kernels, WinogradTest,
                         testing::Combine(testing::ValuesIn(cpu_kernels()),
                                          testing::Values(DType::f32)),
                         name_of_case);

}  // namespace
}  // namespace mocograd
