// The built-in data set: always the same pixels, and what they give away about the class.
#include "data/shapes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "autograd/ops/rows.h"
#include "moco/knn.h"
#include "tensor/backend.h"
#include "tensor/error.h"

namespace mocograd {
namespace {

const DataSet& shapes32() {
  static const DataSet data = generate_shapes(32);
  return data;
}

// FNV-1a, 64 bits.
uint64_t hash_of(const Tensor& bytes) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const uint8_t* p = bytes.data<uint8_t>(); p != bytes.data<uint8_t>() + bytes.numel(); ++p)
    hash = (hash ^ *p) * 0x100000001b3;
  return hash;
}

// Results of old runs can be compared with new ones only while these stay.
TEST(Shapes, ThePixelsAreAlwaysTheSame) {
  EXPECT_EQ(hash_of(shapes32().train.images), 0x3bf1d4cc86f99126);
  EXPECT_EQ(hash_of(shapes32().test->images), 0x569e70ca4c16b78a);
  const DataSet odd = generate_shapes(13);
  EXPECT_EQ(hash_of(odd.train.images), 0x0928a5f76047ca84);
  EXPECT_EQ(hash_of(odd.test->images), 0x11872d504eb72097);
}

TEST(Shapes, HasTenClassesInTurn) {
  const DataSet& data = shapes32();
  EXPECT_EQ(data.name, "shapes");
  EXPECT_EQ(data.train.images.shape(), Shape({10000, 3, 32, 32}));
  EXPECT_EQ(data.test->images.shape(), Shape({2000, 3, 32, 32}));
  EXPECT_EQ(std::set(data.classes.begin(), data.classes.end()).size(), 10u);
  for (const Tensor& labels : {data.train.labels, data.test->labels}) {
    for (int64_t i = 0; i < labels.numel(); ++i) ASSERT_EQ(labels.data<int64_t>()[i], i % 10);
  }
  EXPECT_EQ(generate_shapes(5).train.images.shape(), Shape({10000, 3, 5, 5}));
  EXPECT_THROW(generate_shapes(0), Error);
}

TEST(Shapes, NoPictureComesTwice) {
  std::set<std::vector<uint8_t>> pictures;
  for (const Tensor& images : {shapes32().train.images, shapes32().test->images}) {
    for (int64_t i = 0; i < images.dim(0); ++i) {
      const uint8_t* pixels = images.data<uint8_t>() + i * 3 * 32 * 32;
      pictures.emplace(pixels, pixels + 3 * 32 * 32);
    }
  }
  EXPECT_EQ(pictures.size(), 12000u);
}

TEST(Shapes, MeanAndStandardDeviationAreThoseOfTheTrainingImages) {
  const Tensor& images = shapes32().train.images;
  for (int64_t c = 0; c < 3; ++c) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < images.dim(0); ++i) {
      for (int64_t p = 0; p < 32 * 32; ++p) {
        const double value = images.data<uint8_t>()[(i * 3 + c) * 32 * 32 + p] / 255.0;
        sum += value;
        squares += value * value;
      }
    }
    const double n = 10000.0 * 32 * 32, mean = sum / n;
    EXPECT_NEAR(shapes32().mean[static_cast<size_t>(c)], mean, 5.1e-5);  // four decimals
    EXPECT_NEAR(shapes32().std[static_cast<size_t>(c)], std::sqrt(squares / n - mean * mean),
                5.1e-5);
  }
}

// ---- what is easy must not help -------------------------------------------------------------------

// [M, 3, H, W] to unit rows [M, D]: all values, or the mean of each channel; from −½ to ½.
Tensor rows_of(const Tensor& images, bool mean_colors) {
  const int64_t plane = images.dim(2) * images.dim(3), planes = images.dim(0) * 3;
  const Tensor rows = images.to(DType::f32).reshape({planes, plane});
  float* values = rows.data<float>();
  for (int64_t i = 0; i < rows.numel(); ++i) values[i] = values[i] / 255 - 0.5f;
  Tensor features = rows.reshape({images.dim(0), 3 * plane});
  if (mean_colors) {
    features = Tensor::zeros({images.dim(0), 3});
    for (int64_t i = 0; i < rows.numel(); ++i)
      features.data<float>()[i / plane] += values[i] / static_cast<float>(plane);
  }
  return l2_normalize(Variable(features)).data();
}

double best_knn_accuracy(bool mean_colors) {
  const DataSet& data = shapes32();
  const Tensor bank = rows_of(data.train.images, mean_colors);
  constexpr int64_t kQuestions = 500;
  const Tensor features = rows_of(data.test->images.rows(0, kQuestions), mean_colors);
  const Tensor labels = data.test->labels.rows(0, kQuestions);
  double best = 0;
  for (const int64_t k : {1, 20}) {
    best = std::max(best, knn_accuracy(bank, data.train.labels, features, labels, 10,
                                       {.k = k, .temperature = 0.1}));
  }
  return best;
}

TEST(Shapes, RawPixelsSayLittle) {
  const double accuracy = best_knn_accuracy(false);
  EXPECT_LT(accuracy, 50);
  EXPECT_GT(accuracy, 10);  // chance
}

TEST(Shapes, MeanColoursSayNothing) {
  EXPECT_LT(best_knn_accuracy(true), 20);
}

// ---- the outlines ---------------------------------------------------------------------------------

// The share of the square [-1, 1]² that the shape covers, by its middles of 400×400 cells.
double area_of(int64_t label) {
  constexpr int kCells = 400;
  int inside = 0;
  for (int i = 0; i < kCells * kCells; ++i)
    inside += inside_shape(label, (i % kCells + 0.5) * 2 / kCells - 1,
                           (i / kCells + 0.5) * 2 / kCells - 1);
  return 4.0 * inside / (kCells * kCells);
}

TEST(InsideShape, AreasAreThoseOfTheFigures) {
  const double kPi = 3.141592653589793, kSqrt3 = 1.7320508075688772;
  EXPECT_NEAR(area_of(0), kPi * 0.64, 0.01);                    // disc of radius 0.8
  EXPECT_NEAR(area_of(1), kPi * (0.95 * 0.95 - 0.25), 0.01);    // between two circles
  EXPECT_NEAR(area_of(2), 1.5 * 1.5 / kSqrt3, 0.01);            // equilateral, 1.5 high
  EXPECT_NEAR(area_of(3), 1.4 * 1.4, 0.01);                     // square of side 1.4
  EXPECT_NEAR(area_of(4), 10 * 0.5 * 0.45 * 0.587785, 0.01);    // ten triangles around the centre
  EXPECT_NEAR(area_of(5), 2 * 0.44 * 1.8 - 0.44 * 0.44, 0.01);  // two crossing bars
  EXPECT_NEAR(area_of(8), 0.4 * 1.05 + 0.9 * 0.75 - 0.4 * 0.05,
              0.04);  // shaft, head, and where both are
  EXPECT_NEAR(area_of(9), 2 * 0.85 * (2 * 0.08 + 0.75 * 0.85) - 0.033, 0.01);  // trapezoids, cut
}

TEST(InsideShape, LiesWithinTheUnitCircleAndIsItsOwnMirrorImage) {
  for (int64_t label = 0; label < 10; ++label) {
    for (int i = 0; i < 250 * 250; ++i) {
      const double x = (i % 250 - 124.5) / 100, y = (i / 250 - 124.5) / 100;
      if (!inside_shape(label, x, y)) continue;
      EXPECT_LE(x * x + y * y, 1.0001) << label << " at " << x << ", " << y;
      const bool crescent = label == 6;  // opens to the right, so up and down mirror
      EXPECT_TRUE(crescent ? inside_shape(label, x, -y) : inside_shape(label, -x, y))
          << label << " at " << x << ", " << y;
    }
  }
}

TEST(InsideShape, NoTwoAreAlike) {
  for (int64_t a = 0; a < 10; ++a) {
    for (int64_t b = 0; b < a; ++b) {
      int common = 0, either = 0;
      for (int i = 0; i < 200 * 200; ++i) {
        const double x = (i % 200 - 99.5) / 100, y = (i / 200 - 99.5) / 100;
        const bool in_a = inside_shape(a, x, y), in_b = inside_shape(b, x, y);
        common += in_a && in_b;
        either += in_a || in_b;
      }
      EXPECT_LT(common, 0.85 * either) << a << " and " << b;
    }
  }
}

TEST(InsideShape, PointsOfTheDrawing) {
  EXPECT_FALSE(inside_shape(1, 0, 0));                                  // the ring's hole
  EXPECT_TRUE(inside_shape(2, 0, -0.99) && !inside_shape(2, 0, 0.51));  // stands on its base
  EXPECT_TRUE(inside_shape(4, 0, -0.99) && !inside_shape(4, 0, 0.46));  // a point is up
  EXPECT_TRUE(inside_shape(6, -0.9, 0) && !inside_shape(6, 0.3, 0));    // open to the right
  EXPECT_TRUE(inside_shape(7, 0, 0.9) && !inside_shape(7, 0, -0.6));    // two lobes, one tip
  EXPECT_TRUE(inside_shape(8, 0, -0.94) && inside_shape(8, 0.7, -0.06) && !inside_shape(8, 0.7, 0));
  EXPECT_TRUE(inside_shape(9, 0.5, 0.84) && !inside_shape(9, 0.1, 0));  // narrow in the middle
  EXPECT_THROW(inside_shape(10, 0, 0), Error);
  EXPECT_THROW(inside_shape(-1, 0, 0), Error);
}

}  // namespace
}  // namespace mocograd
