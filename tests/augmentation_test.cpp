// What is drawn for a view: ranges, probabilities and distributions of every recipe, and what a view
// depends on. Statistics are of fixed seeds; their bounds are five standard deviations.
#include "data/augmentation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

#include "io/safetensors.h"
#include "tensor/error.h"

namespace mocograd {
namespace {

constexpr int64_t kViews = 40000;

ViewSettings settings_of(Augmentation augmentation, int64_t height = 32, int64_t width = 32) {
  return {augmentation, 5, height, width, {0.1f, 0.2f, 0.3f}, {0.4f, 0.5f, 0.6f}};
}

std::vector<ViewRecipe> sample_views(const ViewSettings& settings, int64_t count = kViews,
                                     int64_t epoch = 1, int view_index = 0) {
  std::vector<ViewRecipe> views;
  for (int64_t i = 0; i < count; ++i) views.push_back(sample_view(settings, epoch, i, view_index));
  return views;
}

bool is_jittered(const ViewRecipe& view) {
  return view.jitter_order[0] != ViewRecipe::none;
}

// Every number of a recipe but `image`.
std::vector<double> numbers_of(const ViewRecipe& view) {
  std::vector<double> numbers = {
      double(view.top),       double(view.left),       double(view.height),    double(view.width),
      view.brightness_factor, view.contrast_factor,    view.saturation_factor, view.hue_shift,
      view.blur_sigma,        double(view.gray_first), double(view.gray_last), double(view.flip)};
  numbers.insert(numbers.end(), view.jitter_order, view.jitter_order + 4);
  numbers.insert(numbers.end(), view.mean, view.mean + 3);
  numbers.insert(numbers.end(), view.std, view.std + 3);
  return numbers;
}

// ---- statistics -----------------------------------------------------------------------------------

constexpr double kDeviations = 5;

// A χ² of that many degrees of freedom has this mean and standard deviation.
void expect_chi_square(double chi_square, double freedom, const std::string& what) {
  EXPECT_LE(chi_square, freedom + kDeviations * std::sqrt(2 * freedom)) << what;
}

void expect_probability(const std::vector<ViewRecipe>& views, double p, const char* what,
                        const std::function<bool(const ViewRecipe&)>& happened) {
  const double n = static_cast<double>(views.size());
  const double count = static_cast<double>(std::count_if(views.begin(), views.end(), happened));
  EXPECT_LE(std::abs(count - n * p), kDeviations * std::sqrt(n * p * (1 - p)))
      << what << ": " << count << " of " << n;
}

// Kolmogorov and Smirnov: the largest distance D between the distribution functions; √n·D exceeds c
// with probability 2·exp(−2c²), which is that of five standard deviations at 2.75.
void expect_uniform(std::vector<double> values, double low, double high, const char* what) {
  ASSERT_GT(values.size(), 1000u) << what;
  std::sort(values.begin(), values.end());
  EXPECT_GE(values.front(), low) << what;
  EXPECT_LE(values.back(), high) << what;
  const double n = static_cast<double>(values.size());
  double distance = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const double expected = (values[i] - low) / (high - low);
    distance = std::max({distance, std::abs(expected - static_cast<double>(i) / n),
                         std::abs(expected - static_cast<double>(i + 1) / n)});
  }
  EXPECT_LE(distance * std::sqrt(n), 2.75) << what;
}

// The correlation of independent numbers has the standard deviation 1/√n.
void expect_uncorrelated(const std::vector<double>& a, const std::vector<double>& b,
                         const std::string& what) {
  ASSERT_EQ(a.size(), b.size());
  const double n = static_cast<double>(a.size());
  double sum_a = 0, sum_b = 0, sum_aa = 0, sum_bb = 0, sum_ab = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    sum_a += a[i];
    sum_b += b[i];
    sum_aa += a[i] * a[i];
    sum_bb += b[i] * b[i];
    sum_ab += a[i] * b[i];
  }
  const double covariance = sum_ab / n - sum_a / n * sum_b / n;
  const double variance_a = sum_aa / n - sum_a / n * sum_a / n;
  const double variance_b = sum_bb / n - sum_b / n * sum_b / n;
  ASSERT_GT(variance_a * variance_b, 0) << what << " is constant";
  EXPECT_LE(std::abs(covariance) / std::sqrt(variance_a * variance_b), kDeviations / std::sqrt(n))
      << what;
}

// ---- the crop -------------------------------------------------------------------------------------

// Whether two histograms are samples of one distribution: χ² of two samples, the bins of fewer than
// 20 thrown together.
void expect_same_distribution(const std::vector<double>& a, const std::vector<double>& b,
                              const std::string& what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  double total_a = 0, total_b = 0, rest_a = 0, rest_b = 0, chi_square = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    total_a += a[i];
    total_b += b[i];
  }
  ASSERT_GT(total_a, 0);
  ASSERT_GT(total_b, 0);
  const double weight = std::sqrt(total_b / total_a);
  int bins = 0;
  const auto add_bin = [&](double in_a, double in_b) {
    const double difference = weight * in_a - in_b / weight;
    chi_square += difference * difference / (in_a + in_b);
    ++bins;
  };
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] + b[i] >= 20) {
      add_bin(a[i], b[i]);
    } else {
      rest_a += a[i];
      rest_b += b[i];
    }
  }
  if (rest_a + rest_b > 0) add_bin(rest_a, rest_b);
  expect_chi_square(chi_square, bins - 1, what);
}

TEST(Augmentation, BoxesAreDistributedAsTorchvisions) {
  const auto crops = read_safetensors("tests/fixtures/augmentation/crops.safetensors").tensors;
  int cases = 0;
  for (const auto& [name, sizes] : crops) {
    if (!name.ends_with(".sizes")) continue;
    ++cases;
    const std::string prefix = name.substr(0, name.size() - 6);
    const Augmentation augmentation =
        prefix.ends_with(".8") ? Augmentation::demo : Augmentation::v1;
    const int64_t height = sizes.dim(0) - 1, width = sizes.dim(1) - 1;
    std::vector<double> our_sizes(static_cast<size_t>(sizes.numel()));
    std::vector<double> our_places(static_cast<size_t>(height * width));
    for (const ViewRecipe& view : sample_views(settings_of(augmentation, height, width), 100000)) {
      ASSERT_GE(std::min({view.top, view.left, view.height - 1, view.width - 1}), 0);
      ASSERT_LE(view.top + view.height, height);
      ASSERT_LE(view.left + view.width, width);
      ++our_sizes[static_cast<size_t>(view.height * (width + 1) + view.width)];
      ++our_places[static_cast<size_t>(view.top * width + view.left)];
    }
    expect_same_distribution(our_sizes, sizes.to_vector(), name);
    expect_same_distribution(our_places, crops.at(prefix + ".places").to_vector(),
                             prefix + ".places");
  }
  EXPECT_EQ(cases, 8);
}

TEST(Augmentation, AnImageTooLongForAnyBoxIsCutToItsCentre) {
  const ViewRecipe wide = sample_view(settings_of(Augmentation::demo, 2, 100), 1, 0, 0);
  EXPECT_EQ(std::vector({wide.top, wide.left, wide.height, wide.width}),
            std::vector({0, 48, 2, 3}));  // 2 · 4/3 rounded
  const ViewRecipe high = sample_view(settings_of(Augmentation::v2, 101, 3), 1, 0, 0);
  EXPECT_EQ(std::vector({high.top, high.left, high.height, high.width}),
            std::vector({48, 0, 4, 3}));
  const ViewRecipe pixel = sample_view(settings_of(Augmentation::v1, 1, 1), 1, 0, 0);
  EXPECT_EQ(std::vector({pixel.top, pixel.left, pixel.height, pixel.width}),
            std::vector({0, 0, 1, 1}));
}

// ---- the recipes ----------------------------------------------------------------------------------

struct Recipe {
  Augmentation augmentation;
  double smallest_area, jitter_probability, hue;
  bool gray_first, blur;
};

class AugmentationRecipe : public testing::TestWithParam<Recipe> {
 protected:
  const std::vector<ViewRecipe> views_ = sample_views(settings_of(GetParam().augmentation));
};

INSTANTIATE_TEST_SUITE_P(, AugmentationRecipe,
                         testing::Values(Recipe{Augmentation::demo, 0.08, 0.8, 0.1, false, false},
                                         Recipe{Augmentation::v1, 0.2, 1.0, 0.4, true, false},
                                         Recipe{Augmentation::v2, 0.2, 0.8, 0.1, false, true}),
                         [](const auto& info) {
                           return std::string(std::array{"demo", "v1", "v2"}[info.index]);
                         });

TEST_P(AugmentationRecipe, HappensAsOftenAsItShould) {
  const Recipe& recipe = GetParam();
  expect_probability(views_, 0.5, "flip", [](const ViewRecipe& view) { return view.flip; });
  expect_probability(views_, recipe.jitter_probability, "jitter", is_jittered);
  expect_probability(views_, recipe.gray_first ? 0.2 : 0, "gray_first",
                     [](const ViewRecipe& view) { return view.gray_first; });
  expect_probability(views_, recipe.gray_first ? 0 : 0.2, "gray_last",
                     [](const ViewRecipe& view) { return view.gray_last; });
  expect_probability(views_, recipe.blur ? 0.5 : 0, "blur",
                     [](const ViewRecipe& view) { return view.blur_sigma > 0; });
}

TEST_P(AugmentationRecipe, KeepsToTheSmallestArea) {
  double smallest = 1;
  for (const ViewRecipe& view : views_)
    smallest = std::min(smallest, view.height * view.width / (32.0 * 32.0));
  // Rounding of both sides moves a box of 9×9 by half a pixel a side, a ninth of its area.
  EXPECT_NEAR(smallest, GetParam().smallest_area, GetParam().smallest_area / 9);
}

TEST_P(AugmentationRecipe, FactorsAreUniform) {
  std::map<const char*, std::vector<double>> values;
  for (const ViewRecipe& view : views_) {
    if (view.blur_sigma > 0) values["blur"].push_back(view.blur_sigma);
    if (is_jittered(view)) {
      values["brightness"].push_back(view.brightness_factor);
      values["contrast"].push_back(view.contrast_factor);
      values["saturation"].push_back(view.saturation_factor);
      values["hue"].push_back(view.hue_shift);
    } else {
      EXPECT_EQ(view.brightness_factor, 1);
      EXPECT_EQ(view.contrast_factor, 1);
      EXPECT_EQ(view.saturation_factor, 1);
      EXPECT_EQ(view.hue_shift, 0);
    }
  }
  constexpr double kRounding = 1e-7;  // to float
  for (const char* factor : {"brightness", "contrast", "saturation"})
    expect_uniform(values[factor], 0.6 - kRounding, 1.4 + kRounding, factor);
  expect_uniform(values["hue"], -GetParam().hue - kRounding, GetParam().hue + kRounding, "hue");
  if (GetParam().blur) expect_uniform(values["blur"], 0.1 - kRounding, 2 + kRounding, "blur");
}

TEST_P(AugmentationRecipe, EveryOrderOfTheJitterIsEquallyLikely) {
  std::map<std::vector<int>, double> counts;
  double total = 0;
  for (const ViewRecipe& view : views_) {
    if (!is_jittered(view)) continue;
    std::vector<int> order(view.jitter_order, view.jitter_order + 4);
    ++counts[order];
    ++total;
    std::sort(order.begin(), order.end());
    ASSERT_EQ(order, std::vector<int>({ViewRecipe::brightness, ViewRecipe::contrast,
                                       ViewRecipe::saturation, ViewRecipe::hue}));
  }
  EXPECT_EQ(counts.size(), 24u);
  double chi_square = 0;
  for (const auto& [order, count] : counts)
    chi_square += (count - total / 24) * (count - total / 24) / (total / 24);
  expect_chi_square(chi_square, 23, "orders");
}

using Columns = std::map<std::string, std::vector<double>>;

// The numbers of recipes that vary, without most of those that only a jitter or a blur sets.
Columns columns_of(const std::vector<ViewRecipe>& views) {
  Columns columns;
  for (const ViewRecipe& view : views) {
    columns["top"].push_back(view.top);
    columns["left"].push_back(view.left);
    columns["area"].push_back(view.height * view.width);
    columns["ratio"].push_back(std::log(double(view.width) / view.height));
    columns["flip"].push_back(view.flip);
    columns["gray"].push_back(view.gray_first || view.gray_last);
    columns["brightness"].push_back(view.brightness_factor);
  }
  return columns;
}

void expect_independent(const std::vector<ViewRecipe>& some, const std::vector<ViewRecipe>& others,
                        const std::string& what) {
  for (const auto& [name_a, a] : columns_of(some)) {
    for (const auto& [name_b, b] : columns_of(others))
      expect_uncorrelated(a, b, what + ": " + name_a + " and " + name_b);
  }
}

TEST_P(AugmentationRecipe, ViewsEpochsSamplesAndSeedsAreIndependent) {
  const ViewSettings settings = settings_of(GetParam().augmentation);
  expect_independent(views_, sample_views(settings, kViews, 1, 1), "the other view");
  expect_independent(views_, sample_views(settings, kViews, 2, 0), "the next epoch");
  std::vector<ViewRecipe> shifted(views_.begin() + 1, views_.end());
  shifted.push_back(views_[0]);
  expect_independent(views_, shifted, "the next sample");
  for (const uint64_t seed : {uint64_t{6}, uint64_t{5} + (uint64_t{1} << 32)}) {
    ViewSettings other = settings;
    other.seed = seed;
    expect_independent(views_, sample_views(other), "seed " + std::to_string(seed));
  }
}

void expect_uncorrelated_pairs(const Columns& columns) {
  for (const auto& [name_a, a] : columns) {
    for (const auto& [name_b, b] : columns) {
      if (name_a < name_b) expect_uncorrelated(a, b, name_a + " and " + name_b);
    }
  }
}

TEST_P(AugmentationRecipe, PartsOfAViewAreIndependent) {
  Columns all, jittered;
  for (const ViewRecipe& view : views_) {
    all["area"].push_back(view.height * view.width);
    all["flip"].push_back(view.flip);
    all["gray"].push_back(view.gray_first || view.gray_last);
    if (GetParam().jitter_probability < 1) all["jitter"].push_back(is_jittered(view));
    if (GetParam().blur) all["blur"].push_back(view.blur_sigma > 0);
    if (!is_jittered(view)) continue;
    jittered["first part"].push_back(view.jitter_order[0]);
    jittered["brightness"].push_back(view.brightness_factor);
    jittered["contrast"].push_back(view.contrast_factor);
    jittered["saturation"].push_back(view.saturation_factor);
    jittered["hue"].push_back(view.hue_shift);
    jittered["area"].push_back(view.height * view.width);
  }
  expect_uncorrelated_pairs(all);
  expect_uncorrelated_pairs(jittered);
}

TEST_P(AugmentationRecipe, AreFunctionsOfTheirKey) {
  const ViewSettings settings = settings_of(GetParam().augmentation);
  for (int64_t i = 99; i >= 0; --i) {  // asked for in another order
    const ViewRecipe again = sample_view(settings, 1, i, 0);
    EXPECT_EQ(numbers_of(again), numbers_of(views_[static_cast<size_t>(i)]));
    EXPECT_EQ(again.image, i);
    EXPECT_NE(numbers_of(again), numbers_of(sample_view(settings, 1, i, 1)));
    EXPECT_TRUE(std::equal(again.mean, again.mean + 3, settings.mean.begin()));
    EXPECT_TRUE(std::equal(again.std, again.std + 3, settings.std.begin()));
  }
}

// ---- nothing random -------------------------------------------------------------------------------

TEST(Augmentation, NoneIsTheWholeImageNormalised) {
  const ViewSettings settings = settings_of(Augmentation::none, 40, 28);
  ViewRecipe expected;
  expected.height = 40;
  expected.width = 28;
  std::copy(settings.mean.begin(), settings.mean.end(), expected.mean);
  std::copy(settings.std.begin(), settings.std.end(), expected.std);
  for (int64_t i = 0; i < 100; ++i) {
    EXPECT_EQ(numbers_of(sample_view(settings, i, i, static_cast<int>(i % 2))),
              numbers_of(expected));
    EXPECT_EQ(sample_view(settings, 1, i, 0).image, i);
    EXPECT_EQ(evaluation_view(settings, i).image, i);
  }
  EXPECT_EQ(numbers_of(evaluation_view(settings_of(Augmentation::v2, 40, 28), 3)),
            numbers_of(expected));
}

TEST(Augmentation, ReadsTheNamesOfTheRecipes) {
  EXPECT_EQ(parse_augmentation("demo"), Augmentation::demo);
  EXPECT_EQ(parse_augmentation("v1"), Augmentation::v1);
  EXPECT_EQ(parse_augmentation("v2"), Augmentation::v2);
  EXPECT_EQ(parse_augmentation("none"), Augmentation::none);
  for (const char* name : {"", "v3", "Demo", "demo "}) {
    EXPECT_THROW(parse_augmentation(name), UsageError) << name;
  }
}

}  // namespace
}  // namespace mocograd
