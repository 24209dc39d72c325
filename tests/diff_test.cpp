// Dumps and their comparison.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <optional>
#include <sstream>

#include "debug/diff.h"
#include "debug/dump.h"
#include "tiny_step.h"

namespace mocograd {
namespace {

using Names = std::vector<std::string>;

// One step in double; the saboteur sees each operation before it is written down.
NamedTensors dumped_step(OperationObserver* saboteur = nullptr) {
  const Unfused unfused;
  TinyStep step(DType::f64);
  NamedTensors dump;
  Dumper dumper(dump);
  dumper.begin_step(0);
  std::optional<ObserverScope> first;
  if (saboteur) first.emplace(*saboteur);
  const ObserverScope scope(dumper);
  step.run();
  return dump;
}

// ---- dumps ---------------------------------------------------------------------------------------

TEST(Dump, HoldsResultsAndGradientsInPyTorchsOrder) {
  const NamedTensors dump = dumped_step();
  const auto shape = [&](const std::string& name) { return dump.tensors.at(name).shape(); };
  EXPECT_EQ(shape("step.0.forward.encoder_q.layer2.0.conv1.conv2d"), Shape({8, 4, 4, 4}));
  EXPECT_EQ(shape("step.0.forward.encoder_q.conv1.conv2d"), Shape({8, 2, 8, 8}));
  EXPECT_EQ(shape("step.0.backward.encoder_q.conv1.conv2d"), Shape({8, 2, 8, 8}));
  EXPECT_EQ(shape("step.0.forward.encoder_k.fc.linear"), Shape({8, 4}));
  EXPECT_FALSE(dump.tensors.contains("step.0.backward.encoder_k.fc.linear"));
  EXPECT_EQ(shape("step.0.backward.cross_entropy"), Shape());
  EXPECT_EQ(dump.tensors.at("step.0.backward.cross_entropy").item(), 1);
}

TEST(Dump, ListsItsTensorsInTheOrderOfTheOperations) {
  const NamedTensors dump = dumped_step();
  std::istringstream order(dump.metadata.at(kDumpOrderKey));
  Names names;
  for (std::string name; std::getline(order, name);) names.push_back(name);
  EXPECT_EQ(names.size(), dump.tensors.size());
  const auto at = [&](const std::string& name) {
    return std::find(names.begin(), names.end(), "step.0." + name) - names.begin();
  };
  EXPECT_LT(at("forward.encoder_k.conv1.conv2d"), at("forward.encoder_q.conv1.conv2d"));
  EXPECT_LT(at("forward.encoder_q.conv1.conv2d"), at("forward.encoder_q.bn1.batch_norm"));
  EXPECT_LT(at("forward.cross_entropy"), at("backward.cross_entropy"));
  EXPECT_LT(at("backward.encoder_q.fc.linear"), at("backward.encoder_q.conv1.conv2d"));
  EXPECT_LT(at("backward.encoder_q.conv1.conv2d"), static_cast<std::ptrdiff_t>(names.size()));
}

// ---- differences ---------------------------------------------------------------------------------

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

Tensor numbers(const std::vector<double>& values, DType dtype = DType::f64) {
  return Tensor::from(values, {2, static_cast<int64_t>(values.size()) / 2}, {.dtype = dtype});
}

TEST(Diff, EqualTensorsDoNotDiffer) {
  const TensorDifference d =
      compare("x", numbers({1, -0.0, kNaN, kInfinity}), numbers({1, 0.0, -kNaN, kInfinity}));
  EXPECT_TRUE(d.within(0));
  EXPECT_EQ(d.max_abs, 0);
  EXPECT_EQ(d.max_rel, 0);
  EXPECT_EQ(d.nmse, 0);
  EXPECT_EQ(d.ulps, 0);
}

TEST(Diff, TellsTheOneNumberThatIsOff) {
  const Tensor b = numbers({1, 2, 4, 8, 16, 32});
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Tensor a = b.to(dtype).clone();
    if (dtype == DType::f32) {
      a.data<float>()[4] = std::nextafter(std::nextafter(16.0f, 17.0f), 17.0f);
    } else {
      a.data<double>()[4] = std::nextafter(std::nextafter(16.0, 17.0), 17.0);
    }
    const double off = a.to_vector()[4] - 16;
    const TensorDifference d = compare("x", a, b);
    EXPECT_EQ(d.place, "[1, 1]");
    EXPECT_EQ(d.ulps, 2);  // of the narrower type
    EXPECT_EQ(d.max_abs, off);
    EXPECT_EQ(d.max_rel, off / 32);
    EXPECT_DOUBLE_EQ(d.nmse, off * off / (1 + 4 + 16 + 64 + 256 + 1024));
    EXPECT_EQ(std::stod(d.a), 16 + off);
    EXPECT_EQ(d.b, "16");
    EXPECT_FALSE(d.within(0));
    EXPECT_TRUE(d.within(off / 32));
    EXPECT_FALSE(d.within(off / 33));
  }
}

TEST(Diff, CountsUlpsInTheNarrowerDtype) {
  const auto ulps = [](double a, DType dtype_a, double b, DType dtype_b) {
    return compare("x", Tensor::full({1}, a, {.dtype = dtype_a}),
                   Tensor::full({1}, b, {.dtype = dtype_b}))
        .ulps;
  };
  const DType bf16 = DType::bf16, f32 = DType::f32, f64 = DType::f64, i64 = DType::i64;
  EXPECT_EQ(ulps(1, bf16, 1 + 0x1p-7, bf16), 1);
  EXPECT_EQ(ulps(1, bf16, 1 + 0x1p-6, f32), 2);
  EXPECT_EQ(ulps(-0x1p-133, bf16, 0x1p-133, f64), 2);  // the least of bf16 but zero
  EXPECT_EQ(ulps(1, f32, 1 + 0x1p-23, f64), 1);
  EXPECT_EQ(ulps(0x1p24, i64, 0x1p24 + 1, i64), 1);  // which floats cannot tell apart
}

TEST(Diff, CountsUlpsAcrossZero) {
  const double least = std::numeric_limits<double>::denorm_min();
  EXPECT_EQ(compare("x", numbers({least, 1}), numbers({-least, 1})).ulps, 2);
}

TEST(Diff, NothingIsNearANaN) {
  for (const double number : {0.0, 1e300, kInfinity}) {
    for (const auto& [a, b] : {std::pair{kNaN, number}, {number, kNaN}}) {
      const TensorDifference d = compare("x", numbers({1, a}), numbers({1, b}));
      EXPECT_FALSE(d.within(1e30)) << a << " and " << b;
      EXPECT_EQ(d.place, "[1, 0]");
    }
  }
  EXPECT_FALSE(compare("x", numbers({1, kInfinity}), numbers({1, -kInfinity})).within(1e30));
}

TEST(Diff, AnInfinityInTheReferenceHidesNothing) {
  const double infinity = std::numeric_limits<double>::infinity();
  const TensorDifference d =
      compare("x", numbers({infinity, 1, 2, 3}), numbers({infinity, 1, 200, 3}));
  EXPECT_DOUBLE_EQ(d.max_rel, 198.0 / 200);
  EXPECT_FALSE(d.within(1e-9));
  EXPECT_FALSE(compare("x", numbers({1, 1, 1, 1}), numbers({infinity, 1, 1, 1})).within(1));
}

TEST(Diff, ReferenceOfZeros) {
  EXPECT_TRUE(compare("x", numbers({0, 0}), numbers({0, 0})).within(0));
  EXPECT_FALSE(compare("x", numbers({0, 1e-300}), numbers({0, 0})).within(1e30));
}

TEST(Diff, TensorsWithoutNumbersAgree) {
  const Tensor none = Tensor::zeros({3, 0, 2});
  const DumpDifference d =
      compare(NamedTensors{{{"none", none}}, {}}, NamedTensors{{{"none", none}}, {}});
  EXPECT_TRUE(agree(d, 0));
  const std::string text = diff_text(d, 0, true);
  EXPECT_NE(text.find("none [3, 0, 2]: max abs 0.000e+00"), std::string::npos) << text;
}

TEST(Diff, IntegersThatADoubleCannotTellApartDiffer) {
  const auto integer = [](int64_t value) {
    const Tensor tensor = Tensor::zeros({1}, {.dtype = DType::i64});
    tensor.data<int64_t>()[0] = value;
    return tensor;
  };
  const int64_t n = int64_t{1} << 53;
  const TensorDifference d = compare("x", integer(n + 1), integer(n));
  EXPECT_FALSE(d.within(0));
  EXPECT_EQ(d.max_abs, 1);
  EXPECT_EQ(d.ulps, 1);
  EXPECT_EQ(d.a, "9007199254740993");
  EXPECT_EQ(d.b, "9007199254740992");
  EXPECT_TRUE(compare("x", integer(n + 1), integer(n + 1)).within(0));
  EXPECT_EQ(compare("x", integer(INT64_MAX), integer(INT64_MIN)).max_abs, 0x1p64);
}

TEST(Diff, SquaresOverflowNowhere) {
  for (const double size : {1e300, 1e-300}) {
    const TensorDifference d = compare("x", numbers({size, size}), numbers({-size, size}));
    EXPECT_EQ(d.nmse, 2) << size;
    EXPECT_EQ(d.max_rel, 2) << size;
  }
}

TEST(Diff, OtherShapesAreNotCompared) {
  const TensorDifference d = compare("x", numbers({1, 2}), Tensor::from({1, 2}, {2}));
  EXPECT_FALSE(d.comparable());
  EXPECT_FALSE(d.within(kInfinity));
  const std::string text = diff_text({{d}, {}, {}}, 0, false);
  EXPECT_NE(text.find("x: shapes [2, 1] and [2]"), std::string::npos) << text;
  EXPECT_NE(text.find("       1        1          inf          inf\n"), std::string::npos) << text;
}

TEST(Diff, NamesOfAnyLengthAndKind) {
  const std::string name = std::string(400, 'n') + "\x1b[31m\n";
  const Tensor x = numbers({1, 2});
  const NamedTensors with{{{name, x}, {"x", x}}, {}}, without{{{"x", x}}, {}};
  const std::string shown = std::string(400, 'n') + "\\x1b[31m\\x0a";
  for (const std::string& text :
       {diff_text(compare(with, with), 0, true), diff_text(compare(with, without), 0, false),
        diff_text(compare(without, with), 0, false)}) {
    EXPECT_NE(text.find(shown), std::string::npos) << text;
    EXPECT_EQ(text.find('\x1b'), std::string::npos) << text;
  }
  const std::string text = diff_text(compare(with, with), 0, false);
  EXPECT_NE(text.find(shown + "        1        0    0.000e+00    0.000e+00\n"), std::string::npos)
      << text;
}

TEST(Diff, ReportsWhatOneSideLacks) {
  const Tensor x = numbers({1, 2});
  const DumpDifference d = compare(NamedTensors{{{"both", x}, {"left", x}}, {}},
                                   NamedTensors{{{"both", x}, {"right", x}}, {}});
  EXPECT_EQ(d.only_a, Names{"left"});
  EXPECT_EQ(d.only_b, Names{"right"});
  EXPECT_TRUE(agree(d, 0));  // in what both have
  const std::string text = diff_text(d, 0, false);
  EXPECT_NE(text.find("1 only in the first, left among them"), std::string::npos) << text;
  EXPECT_NE(text.find("1 only in the second, right among them"), std::string::npos) << text;
}

TEST(Diff, NothingInCommonIsNoAgreement) {
  const Tensor x = numbers({1, 2});
  const DumpDifference d = compare(NamedTensors{{{"a", x}}, {}}, NamedTensors{{{"b", x}}, {}});
  EXPECT_FALSE(agree(d, kInfinity));
  EXPECT_NE(diff_text(d, 0, false).find("no tensor in common"), std::string::npos);
}

// The order is that of the first dump's operations; without it, and after it, by name.
TEST(Diff, FollowsTheOrderOfTheOperations) {
  const Tensor x = numbers({1, 2}), y = numbers({1, 3});
  const NamedTensors a{{{"a", x}, {"b", x}, {"c", x}, {"d", x}},
                       {{kDumpOrderKey, "c\nmissing\nb\nc\n"}}};
  const DumpDifference d = compare(a, NamedTensors{{{"a", y}, {"b", y}, {"c", x}, {"d", x}}, {}});
  Names names;
  for (const TensorDifference& tensor : d.tensors) names.push_back(tensor.name);
  EXPECT_EQ(names, (Names{"c", "b", "a", "d"}));
  const std::string text = diff_text(d, 0.1, false);
  EXPECT_NE(text.find("first beyond 0.1: b [2, 1]: max abs 1.000e+00"), std::string::npos) << text;
}

TEST(Diff, TwoRunsAgreeToTheBit) {
  const DumpDifference d = compare(dumped_step(), dumped_step());
  EXPECT_GT(d.tensors.size(), 200u);
  EXPECT_TRUE(d.only_a.empty());
  EXPECT_TRUE(d.only_b.empty());
  EXPECT_TRUE(agree(d, 0));
}

// One number of one operation is changed; everything after it goes another way, and still that
// operation is named.
struct Place {
  const char *what, *module, *op;
  Phase phase;
  const char* named;  // backward: where the damaged gradient arrives next
};

class PlantedBug : public testing::TestWithParam<Place> {};

TEST_P(PlantedBug, IsTheFirstThatDiffers) {
  struct Damage : OperationObserver {
    explicit Damage(const Place& place) : place(place) {}
    void operation(const Operation& operation) override {
      if (done || operation.phase != place.phase || operation.op != std::string(place.op) ||
          operation.module != place.module)
        return;
      done = true;
      operation.outputs[0].data<double>()[1] *= -1;
    }
    const Place& place;
    bool done = false;
  } damage(GetParam());
  const DumpDifference d = compare(dumped_step(&damage), dumped_step());
  ASSERT_TRUE(damage.done);
  ASSERT_FALSE(agree(d, 1e-9));
  const std::string text = diff_text(d, 1e-9, false);
  EXPECT_NE(text.find(std::string("first beyond 1e-09: step.0.") + GetParam().named + " ["),
            std::string::npos)
      << text;
}

INSTANTIATE_TEST_SUITE_P(
    , PlantedBug,
    testing::Values(Place{"stem", "encoder_q.conv1", "conv2d", Phase::forward,
                          "forward.encoder_q.conv1.conv2d"},
                    Place{"key_encoder", "encoder_k.layer2.1.bn2", "batch_norm", Phase::forward,
                          "forward.encoder_k.layer2.1.bn2.batch_norm"},
                    Place{"logits", "", "scale", Phase::forward, "forward.scale"},
                    Place{"loss_gradient", "", "cross_entropy", Phase::backward, "backward.scale"},
                    Place{"block_gradient", "encoder_q.layer3.0.conv2", "conv2d", Phase::backward,
                          "backward.encoder_q.layer3.0.relu"}),
    [](const auto& info) { return info.param.what; });

}  // namespace
}  // namespace mocograd
