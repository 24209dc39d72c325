// Shape, Tensor and its views, errors and where they say they happened, random streams.
#include "tensor/tensor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "tensor/backend.h"
#include "tensor/random.h"

namespace mocograd {
namespace {

using Values = std::vector<double>;

// The text of the Error that f throws, "no error" without one.
std::string error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

Tensor counting(const Shape& shape, DType dtype = DType::f32) {
  Values values(static_cast<size_t>(shape.numel()));
  std::iota(values.begin(), values.end(), 0.0);
  return Tensor::from(values, shape, {dtype});
}

TEST(ShapeTest, DimensionsAndText) {
  const Shape shape = {128, 32, 32, 3};
  EXPECT_EQ(shape.ndim(), 4);
  EXPECT_EQ(shape[3], 3);
  EXPECT_EQ(shape.numel(), 128 * 32 * 32 * 3);
  EXPECT_EQ(shape.to_string(), "[128, 32, 32, 3]");
  EXPECT_EQ(shape, Shape(std::vector<int64_t>{128, 32, 32, 3}));
  EXPECT_EQ(shape.to_vector(), (std::vector<int64_t>{128, 32, 32, 3}));
  EXPECT_EQ(Shape{}.numel(), 1);
  EXPECT_EQ(Shape{}.to_string(), "[]");
  EXPECT_EQ((Shape{4, 0, 2}).numel(), 0);
  EXPECT_FALSE((Shape{2, 3}) == (Shape{3, 2}));
  EXPECT_FALSE((Shape{2}) == (Shape{2, 1}));
}

TEST(ShapeTest, RefusesWhatItCannotHold) {
  EXPECT_EQ(error_of([] { Shape({2, -1}); }), "shape: dimension 1 is negative: -1");
  EXPECT_EQ(error_of([] {
              Shape({1, 1, 1, 1, 1, 1});
            }),
            "shape: 6 dimensions, at most 5 are supported");
}

TEST(ShapeTest, RefusesMoreThanMemoryCanHold) {
  const int64_t half = int64_t{1} << 32;
  EXPECT_THROW(Shape({half, half}), Error);
  EXPECT_THROW(Shape({int64_t{1} << 62}), Error);
  EXPECT_EQ(Shape({half, 0}).numel(), 0);
  EXPECT_EQ(Shape({Shape::kMaxNumel}).numel(), Shape::kMaxNumel);
  EXPECT_THROW(Tensor().reshape({1}), Error);
}

TEST(TensorTest, MakesEveryType) {
  for (DType dtype : {DType::f32, DType::f64, DType::i64, DType::u8}) {
    const TensorOptions options = {dtype};
    EXPECT_EQ(Tensor::zeros({2, 3}, options).to_vector(), Values(6, 0));
    EXPECT_EQ(Tensor::full({3}, 7, options).to_vector(), Values(3, 7));
    EXPECT_EQ(counting({5}, dtype).to_vector(), (Values{0, 1, 2, 3, 4}));
    EXPECT_EQ(Tensor::zeros({4, 0}, options).to_vector(), Values());
    const Tensor like = Tensor::zeros_like(counting({2, 2}, dtype));
    EXPECT_EQ(like.dtype(), dtype);
    EXPECT_EQ(like.shape(), (Shape{2, 2}));
    EXPECT_EQ(like.bytes(), 4 * size_of(dtype));
  }
  EXPECT_EQ(Tensor::full({}, 2.5).item(), 2.5);
  EXPECT_EQ(error_of([] { Tensor::from({1, 2, 3}, {2, 2}); }), "tensor: 3 values for shape [2, 2]");
}

TEST(TensorTest, ViewsShareTheirStorage) {
  const Tensor x = counting({4, 3});
  const Tensor flat = x.reshape({12}), middle = x.rows(1, 3);
  EXPECT_EQ(middle.shape(), (Shape{2, 3}));
  EXPECT_EQ(middle.to_vector(), (Values{3, 4, 5, 6, 7, 8}));
  middle.rows(1, 2).fill(-1);
  EXPECT_EQ(flat.to_vector(), (Values{0, 1, 2, 3, 4, 5, -1, -1, -1, 9, 10, 11}));
  EXPECT_EQ(x.rows(2, 2).numel(), 0);

  const Tensor copy = x.clone();
  x.fill(0);
  EXPECT_EQ(copy.to_vector()[11], 11);
}

TEST(TensorTest, AViewKeepsTheStorageAlive) {
  Tensor view;
  {
    const Tensor x = counting({3, 1000});
    view = x.rows(2, 3);
  }
  const Tensor other = Tensor::full({3, 1000}, -1);  // would be given the same block
  EXPECT_EQ(view.to_vector()[999], 2999);
}

TEST(TensorTest, RefusesViewsThatDoNotFit) {
  const Tensor x = counting({4, 3});
  EXPECT_EQ(error_of([&] { x.reshape({5, 2}); }), "reshape: [4, 3] has 12 elements, [5, 2] has 10");
  EXPECT_EQ(error_of([&] { x.rows(2, 5); }), "rows: [2, 5) is outside of [4, 3]");
  EXPECT_EQ(error_of([&] { x.rows(3, 2); }), "rows: [3, 2) is outside of [4, 3]");
  EXPECT_EQ(error_of([&] { x.rows(-1, 2); }), "rows: [-1, 2) is outside of [4, 3]");
  EXPECT_EQ(error_of([] { Tensor::zeros({}).rows(0, 1); }), "rows: a scalar has none");
}

TEST(TensorTest, ConvertsBetweenTypes) {
  const Tensor x = Tensor::from({0, 1, 2.75, 200}, {4}, {DType::f64});
  EXPECT_EQ(x.to(DType::f32).to_vector(), (Values{0, 1, 2.75, 200}));
  EXPECT_EQ(x.to(DType::i64).to_vector(), (Values{0, 1, 2, 200}));
  EXPECT_EQ(x.to(DType::u8).dtype(), DType::u8);
  EXPECT_EQ(x.to(DType::u8).to_vector(), (Values{0, 1, 2, 200}));
  EXPECT_EQ(x.to(DType::f64).raw_bytes(), x.raw_bytes());  // has the type: no copy
  EXPECT_EQ(x.to(Device::cpu).raw_bytes(), x.raw_bytes());
}

TEST(TensorTest, CopiesTheSameShapeAndType) {
  const Tensor x = counting({2, 3}), y = Tensor::zeros({2, 3});
  y.copy_from(x);
  EXPECT_EQ(y.to_vector(), x.to_vector());
  EXPECT_EQ(error_of([&] {
              y.copy_from(counting({3, 2}));
            }),
            "copy: cannot copy f32 [3, 2] to f32 [2, 3]");
  EXPECT_EQ(error_of([&] {
              y.copy_from(counting({2, 3}, DType::f64));
            }),
            "copy: cannot copy f64 [2, 3] to f32 [2, 3]");
  EXPECT_EQ(error_of([&] { y.copy_from(Tensor()); }), "copy: cannot copy undefined to f32 [2, 3]");
}

void permutes_and_back(int64_t N, int64_t H, int64_t W, int64_t C) {
  for (DType dtype : {DType::f32, DType::f64, DType::bf16, DType::i64, DType::u8}) {
    const Tensor nhwc = counting({N, H, W, C}, dtype), nchw = nhwc.permute({0, 3, 1, 2});
    EXPECT_EQ(nchw.shape(), (Shape{N, C, H, W}));
    const Values values = nchw.to_vector();
    size_t i = 0;
    for (int64_t n = 0; n < N; ++n)
      for (int64_t c = 0; c < C; ++c)
        for (int64_t h = 0; h < H; ++h)
          for (int64_t w = 0; w < W; ++w)
            EXPECT_EQ(values[i++], static_cast<double>(((n * H + h) * W + w) * C + c));
    EXPECT_EQ(nchw.permute({0, 2, 3, 1}).to_vector(), nhwc.to_vector());
  }
}

TEST(TensorTest, PermutesToPyTorchOrderAndBack) {
  permutes_and_back(2, 3, 5, 4);
  permutes_and_back(1, 2, 3, 37);  // blocks of 16, and what is left
  EXPECT_EQ(counting({}).permute({}).to_vector(), Values{0});
  EXPECT_EQ(counting({2, 3}).permute({1, 0}).to_vector(), (Values{0, 3, 1, 4, 2, 5}));
  EXPECT_EQ(error_of([] {
              counting({2, 3}).permute({0});
            }),
            "permute: 1 axes for f32 [2, 3] (each once, in the host's memory)");
  for (const std::vector<int>& axes : {std::vector{0, 2}, {1, 1}})
    EXPECT_EQ(error_of([&] {
                counting({2, 3}).permute(axes);
              }),
              "permute: 2 axes for f32 [2, 3] (each once, in the host's memory)");
}

TEST(TensorTest, SaysWhatIsWrongWithIt) {
  const Tensor undefined, x = counting({2, 3});
  EXPECT_FALSE(undefined.defined());
  EXPECT_EQ(undefined.describe(), "undefined");
  EXPECT_EQ(x.describe(), "f32 [2, 3]");
  EXPECT_EQ(error_of([&] { undefined.to_vector(); }), "tensor: used before it was given a value");
  EXPECT_EQ(error_of([&] { undefined.fill(0); }), "tensor: used before it was given a value");
  EXPECT_EQ(error_of([&] { undefined.data<float>(); }), "tensor: used before it was given a value");
  EXPECT_EQ(error_of([&] { x.data<double>(); }), "tensor: read as f64 but it is f32 [2, 3]");
  EXPECT_EQ(error_of([&] { x.item(); }), "item: needs one element, got f32 [2, 3]");
}

TEST(ErrorTest, NamesTheModuleAndTheSourceLine) {
  const auto context = [] {
    try {
      MOCO_CHECK(false, "conv2d: x has ", 3, " channels");
    } catch (const Error& error) {
      EXPECT_STREQ(error.what(), "conv2d: x has 3 channels");
      return error.context();
    }
    return std::string();
  };
  const ModuleScope encoder("encoder_q");
  {
    const ModuleScope layer("layer1.0");
    const ModuleScope conv("conv1");
    EXPECT_EQ(ModuleScope::path(), "encoder_q.layer1.0.conv1");
    EXPECT_EQ(context().rfind("in encoder_q.layer1.0.conv1 (", 0), 0u) << context();
    EXPECT_NE(context().find("tensor_test.cpp:"), std::string::npos) << context();
  }
  EXPECT_EQ(ModuleScope::path(), "encoder_q");
}

TEST(ErrorTest, AScopeEndsWhenAnErrorPassesThroughIt) {
  const std::string text = error_of([] {
    const ModuleScope scope("broken");
    MOCO_CHECK(1 > 2, "one is not above two");
  });
  EXPECT_EQ(text, "one is not above two");
  EXPECT_EQ(ModuleScope::path(), "");
}

// The known-answer vectors that the generator's authors publish with Random123.
TEST(RandomTest, PhiloxKnownAnswers) {
  using Block = std::array<uint32_t, 4>;
  constexpr uint32_t kOnes = 0xffffffff;
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
            (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(RandomTest, AStreamDependsOnItsNameAlone) {
  const auto first = [](RandomStream stream) {
    return std::array<uint32_t, 6>{stream.next(), stream.next(), stream.next(),
                                   stream.next(), stream.next(), stream.next()};
  };
  RandomStream a(1, Purpose::test, 2, 3, 4), b(1, Purpose::test, 2, 4, 4);
  std::array<uint32_t, 6> from_a{}, from_b{};
  for (size_t i = 0; i < 6; ++i) from_b[i] = b.next(), from_a[i] = a.next();  // interleaved
  EXPECT_EQ(from_a, first(RandomStream(1, Purpose::test, 2, 3, 4)));
  EXPECT_EQ(from_b, first(RandomStream(1, Purpose::test, 2, 4, 4)));
  // Each part of the name counts, the upper half of the seed too.
  std::vector<std::array<uint32_t, 6>> streams = {
      from_a,
      from_b,
      first(RandomStream(2, Purpose::test, 2, 3, 4)),
      first(RandomStream(1 | uint64_t{1} << 32, Purpose::test, 2, 3, 4)),
      first(RandomStream(1, Purpose::queue, 2, 3, 4)),
      first(RandomStream(1, Purpose::test, 3, 3, 4)),
      first(RandomStream(1, Purpose::test, 2, 3, 5))};
  std::sort(streams.begin(), streams.end());
  EXPECT_EQ(std::adjacent_find(streams.begin(), streams.end()), streams.end());
}

TEST(RandomTest, NothingIsDrawnFromAStreamOfNoPurpose) {
  RandomStream none(1, Purpose::none);
  EXPECT_TRUE(none.is_none());
  EXPECT_FALSE(RandomStream(0, Purpose::initial_weights).is_none());
  EXPECT_EQ(error_of([&] { none.normal(); }), "random: a stream of Purpose::none was drawn from");
}

TEST(RandomTest, BelowIsInRangeAndUnbiased) {
  RandomStream random(3, Purpose::test);
  for (int64_t n : {int64_t{1}, int64_t{2}, int64_t{7}, int64_t{1000}, int64_t{1} << 32}) {
    for (int i = 0; i < 1000; ++i) {
      const int64_t value = random.below(n);
      ASSERT_TRUE(0 <= value && value < n) << value << " of " << n;
    }
  }
  // Each of seven: 10,000 of 70,000, standard deviation 93. Five of them are one in 1.7 million.
  std::array<int, 7> count{};
  for (int i = 0; i < 70000; ++i) ++count[static_cast<size_t>(random.below(7))];
  for (int c : count) EXPECT_NEAR(c, 10000, 5 * 93);
  // For n = 3/4 of 2^32, plain multiply-and-shift would give half of all to the multiples of three.
  int multiples = 0;
  for (int i = 0; i < 30000; ++i) multiples += random.below(int64_t{3} << 30) % 3 == 0;
  EXPECT_NEAR(multiples, 10000, 5 * 82);
  EXPECT_EQ(error_of([&] { random.below(0); }), "random: below(0) is out of range");
  EXPECT_NE(error_of([&] { random.below((int64_t{1} << 32) + 1); }), "no error");
}

TEST(RandomTest, MomentsOfUniformAndNormal) {
  RandomStream random(4, Purpose::test);
  const int n = 200000;
  double mean = 0, square = 0, mean_normal = 0, square_normal = 0, fourth_normal = 0;
  for (int i = 0; i < n; ++i) {
    const double u = random.uniform(-2, 4), z = random.normal();
    ASSERT_TRUE(-2 <= u && u < 4);
    ASSERT_TRUE(std::isfinite(z));
    mean += u / n, square += u * u / n;
    mean_normal += z / n, square_normal += z * z / n, fourth_normal += z * z * z * z / n;
  }
  // Five standard deviations of each average: √(Var/n), with Var u = 3, Var u² = 19.2, Var z² = 2,
  // Var z⁴ = 96.
  const double root = std::sqrt(n);
  EXPECT_NEAR(mean, 1, 5 * std::sqrt(3) / root);
  EXPECT_NEAR(square, 4, 5 * std::sqrt(19.2) / root);
  EXPECT_NEAR(mean_normal, 0, 5 / root);
  EXPECT_NEAR(square_normal, 1, 5 * std::sqrt(2) / root);
  EXPECT_NEAR(fourth_normal, 3, 5 * std::sqrt(96) / root);
}

}  // namespace
}  // namespace mocograd
