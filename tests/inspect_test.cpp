// What moco inspect prints of a checkpoint.
#include "io/inspect.h"

#include <gtest/gtest.h>

#include <cmath>
#include <sstream>

namespace mocograd {
namespace {

// The words of the line that begins with that name; none where there is no such line.
std::vector<std::string> row_of(const std::string& text, const std::string& name) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream stream(line);
    std::vector<std::string> words;
    for (std::string word; stream >> word;) words.push_back(word);
    if (!words.empty() && words[0] == name) return words;
  }
  return {};
}

using Words = std::vector<std::string>;

TEST(Inspect, ARowTellsTypeShapeAndStatistics) {
  NamedTensors contents;
  contents.tensors["w"] = Tensor::from({-2, 0, 2, 4}, {2, 2});
  contents.tensors["a.longer.name"] = Tensor::from({7}, {}, {.dtype = DType::i64});
  const std::string text = inspect_text(contents);
  // mean 1, std sqrt((9 + 1 + 1 + 9) / 4)
  EXPECT_EQ(row_of(text, "w"), (Words{"w", "f32", "[2,", "2]", "-2", "4", "1", "2.2361"})) << text;
  EXPECT_EQ(row_of(text, "a.longer.name"),
            (Words{"a.longer.name", "i64", "[]", "7", "7", "7", "0"}));
  EXPECT_EQ(row_of(text, "name"), (Words{"name", "type", "shape", "min", "max", "mean", "std"}));
  EXPECT_NE(text.find("\n2 tensors, 5 numbers, 24 bytes\n"), std::string::npos) << text;
  EXPECT_LT(text.find("\na.longer.name"), text.find("\nw ")) << "sorted by name";
}

TEST(Inspect, NanAndInfAreCountedAndLeftOutOfTheStatistics) {
  NamedTensors contents;
  contents.tensors["w"] = Tensor::from({NAN, 1, INFINITY, -INFINITY, 3}, {5});
  contents.tensors["none"] = Tensor::from({NAN, NAN}, {2});
  const std::string text = inspect_text(contents);
  EXPECT_EQ(row_of(text, "w"),
            (Words{"w", "f32", "[5]", "1", "3", "2", "1", "NaN:", "1", "Inf:", "2"}));
  EXPECT_EQ(row_of(text, "none"), (Words{"none", "f32", "[2]", "NaN:", "2"}));
}

TEST(Inspect, EmptyTensorsHaveNoStatistics) {
  NamedTensors contents;
  contents.tensors["w"] = Tensor::empty({0, 3}, {.dtype = DType::u8});
  EXPECT_EQ(row_of(inspect_text(contents), "w"), (Words{"w", "u8", "[0,", "3]"}));
}

TEST(Inspect, MetadataFollowSortedByKey) {
  NamedTensors contents;
  contents.metadata = {{"step", "12"}, {"config.lr", "0.06"}};
  const std::string text = inspect_text(contents);
  EXPECT_EQ(text.substr(text.find("0 tensors")),
            "0 tensors, 0 numbers, 0 bytes\nconfig.lr = 0.06\nstep      = 12\n");
}

}  // namespace
}  // namespace mocograd
