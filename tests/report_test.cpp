// The metrics of a run read back, and the page that is made of them.
#include "debug/report.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "io/json.h"
#include "moco/checkpoint.h"
#include "temporary_directory.h"
#include "tiny_step.h"

namespace mocograd {
namespace {

// ---- metrics.jsonl ---------------------------------------------------------------------------------

class Metrics : public testing::Test {
 protected:
  RunMetrics read(const std::string& text) const {
    std::ofstream(path) << text;
    return read_metrics(path);
  }
  std::string error_of(const std::string& text) const {
    try {
      read(text);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }

  const TemporaryDirectory directory;
  const std::string path = directory.file("metrics.jsonl");
};

TEST_F(Metrics, EveryEventComesBack) {
  const RunMetrics metrics = read(
      R"({"event":"knn","epoch":0,"top1":18})"
      "\n"
      R"({"event":"step","step":1,"epoch":1,"loss":6.5,"top1":25,"lr":0.06,"images_per_s":1e3,"data_wait_s":0.5})"
      "\n"
      R"({"event":"epoch","epoch":1,"loss":6.25,"top1":12.5,"lr":0.06,"images_per_s":900,"seconds":7,"data_wait_s":1})"
      "\n");
  ASSERT_EQ(metrics.steps.size(), 1U);
  const StepEvent& step = metrics.steps[0];
  EXPECT_EQ(step.step, 1);
  EXPECT_EQ(step.epoch, 1);
  EXPECT_EQ((std::vector{step.loss, step.top1, step.lr, step.images_per_s, step.data_wait_s}),
            (std::vector{6.5, 25.0, 0.06, 1000.0, 0.5}));
  ASSERT_EQ(metrics.epochs.size(), 1U);
  const EpochEvent& epoch = metrics.epochs[0];
  EXPECT_EQ(epoch.epoch, 1);
  EXPECT_EQ((std::vector{epoch.loss, epoch.top1, epoch.lr, epoch.images_per_s, epoch.seconds,
                         epoch.data_wait_s}),
            (std::vector{6.25, 12.5, 0.06, 900.0, 7.0, 1.0}));
  ASSERT_EQ(metrics.knn.size(), 1U);
  EXPECT_EQ(metrics.knn[0].epoch, 0);
  EXPECT_EQ(metrics.knn[0].top1, 18);
}

TEST_F(Metrics, WhatIsOfNoConcernIsPassedOver) {
  const RunMetrics metrics = read(R"({"event":"knn","epoch":3,"top1":null,"later":[1]})"
                                  "\n"
                                  R"({"event":"of tomorrow","epoch":[]})"
                                  "\n"
                                  R"({"event":"knn","epo)");  // being written
  ASSERT_EQ(metrics.knn.size(), 1U);
  EXPECT_TRUE(std::isnan(metrics.knn[0].top1));
  EXPECT_TRUE(read("").steps.empty());
}

TEST_F(Metrics, ADamagedLineIsNamed) {
  const std::string good = "{\"event\":\"knn\",\"epoch\":0,\"top1\":18}\n";
  const auto expect_error = [&](const std::string& line, const std::string& text) {
    EXPECT_NE(error_of(good + line + "\n" + good).find(path + ": line 2: " + text),
              std::string::npos)
        << line << ": " << error_of(good + line + "\n" + good);
  };
  expect_error("", "JSON: expected a value at byte 0");
  expect_error("{\"event\":", "JSON: expected a value at byte 9");
  expect_error("[1]", "is no object with an \"event\"");
  expect_error(R"({"event":1})", "is no object with an \"event\"");
  expect_error(R"({"event":"knn","epoch":0})", "the event \"knn\" has no \"top1\"");
  expect_error(R"({"event":"knn","epoch":0.5,"top1":1})", "\"epoch\" is no count");
  expect_error(R"({"event":"knn","epoch":-1,"top1":1})", "\"epoch\" is no count");
  expect_error(R"({"event":"knn","epoch":0,"top1":"1"})", "\"top1\" is no number");
  EXPECT_NE(error_of(good).find("no error"), std::string::npos);
  EXPECT_THROW(read_metrics(directory.file("none")), Error);
  EXPECT_THROW(read_metrics(directory.path()), Error);
}

// ---- the page --------------------------------------------------------------------------------------

JsonValue json_in(const std::string& page) {
  const std::string begin = "<script type=\"application/json\" id=\"data\">";
  const size_t from = page.find(begin) + begin.size();
  return parse_json(page.substr(from, page.find("</script>", from) - from));
}

double number(const JsonValue* json) {
  if (!json) return NAN;
  if (const int64_t* integer = json->get<int64_t>()) return static_cast<double>(*integer);
  return json->get<double>() ? *json->get<double>() : NAN;
}

std::vector<double> numbers(const JsonValue* json) {
  std::vector<double> values;
  for (const JsonValue& value : *json->get<JsonArray>()) values.push_back(number(&value));
  return values;
}

// Nothing is trained: what the page says of it can be told.
RunRecord tiny_run(PretrainConfig config) {
  config.dim = 2;
  config.queue = 15;
  TinyStep step;
  const Progress progress{.epoch = 2, .step = 7};
  RunRecord run{.name = "tiny", .metrics = {}, .checkpoint = {}, .log = ""};
  run.checkpoint.metadata =
      copy_for_checkpoint(config, progress, step.moco, step.optimizer, {"", "plain", "1.2.3"})
          .metadata;
  auto& tensors = run.checkpoint.tensors;
  tensors["encoder_q.conv1.weight"] =
      Tensor::from({0, 10, 0, 0, 5, 10, /* of the other */ 2, 2, 2, 2, 2, 2}, {2, 3, 1, 2});
  tensors["encoder_k.conv1.weight"] =
      Tensor::from({0, 10, 0, 0, 5, 10, 2, 2, 2, 2, 2, 5}, {2, 3, 1, 2});
  tensors["encoder_q.bn1.running_mean"] = Tensor::full({2}, 7);
  tensors["encoder_q.bn1.bias"] = tensors["encoder_k.bn1.bias"] = Tensor::zeros({2});
  std::vector<double> keys(30);  // five are (1, 0), as many (0, 1), as many (-1, 0)
  for (size_t j = 0; j < 5; ++j) keys[j] = keys[20 + j] = 1, keys[10 + j] = -1;
  tensors["queue"] = Tensor::from(keys, {2, 15});
  return run;
}

TEST(Report, EachPointIsOfAsManySteps) {
  PretrainConfig config;
  config.batch = 50;
  RunRecord run = tiny_run(config);
  for (int64_t step = 1; step <= 1802; ++step)
    run.metrics.steps.push_back({.step = step,
                                 .epoch = 1 + step / 601,
                                 .loss = static_cast<double>(step * step),
                                 .images_per_s = 1000,
                                 .data_wait_s = 0.25});
  run.metrics.knn = {{0, 10}, {2, 30}, {9, 50}};
  const JsonValue json = json_in(html_of(run));
  const JsonValue& steps = *json.find("steps");
  EXPECT_EQ(number(steps.find("of_point")), 4);
  const std::vector<double> last = numbers(steps.find("last"));
  ASSERT_EQ(last.size(), 451U);
  EXPECT_EQ(last[1], 8);
  EXPECT_EQ(last.back(), 1802);
  const JsonValue& loss = *steps.find("loss");
  EXPECT_EQ(numbers(loss.find("mean"))[1], (25 + 36 + 49 + 64) / 4.0);
  EXPECT_EQ(numbers(loss.find("low"))[1], 25);
  EXPECT_EQ(numbers(loss.find("high"))[1], 64);
  EXPECT_EQ(numbers(loss.find("mean")).back(), (1801.0 * 1801.0 + 1802.0 * 1802.0) / 2);
  EXPECT_EQ(numbers(steps.find("ms")->find("mean"))[3], 50);
  EXPECT_EQ(numbers(steps.find("wait_ms")->find("high"))[3], 250);
  EXPECT_EQ(numbers(json.find("knn")->find("step")), (std::vector<double>{0, 1201, 1802}));
}

// What was not finite is in no mean, and all the same is the same.
TEST(Report, PointsOfWhatIsNotFiniteOrConstant) {
  RunRecord run = tiny_run({});
  for (int64_t step = 1; step <= 1801; ++step)
    run.metrics.steps.push_back(
        {.step = step, .epoch = 1, .loss = step == 2 || step > 1800 ? NAN : 3, .lr = 0.1});
  const JsonValue json = json_in(html_of(run));
  const JsonValue& loss = *json.find("steps")->find("loss");
  EXPECT_EQ(numbers(loss.find("mean"))[0], 3);
  EXPECT_EQ(numbers(loss.find("high"))[0], 3);
  EXPECT_TRUE(std::isnan(numbers(loss.find("mean")).back()));
  EXPECT_TRUE(std::isnan(numbers(loss.find("low")).back()));
  const std::vector<double> lr = numbers(json.find("steps")->find("lr")->find("mean"));
  EXPECT_EQ(lr, std::vector<double>(lr.size(), 0.1));
}

// Of an epoch within which a run was resumed the event knows only what came after.
TEST(Report, TimeIsThatOfTheSteps) {
  PretrainConfig config;
  config.batch = 50;
  RunRecord run = tiny_run(config);
  for (int64_t step = 1; step <= 5; ++step)
    run.metrics.steps.push_back({.step = step,
                                 .epoch = 1 + step / 3,
                                 .images_per_s = step == 5 ? 10.0 : 100.0,
                                 .data_wait_s = 0.125});
  run.metrics.epochs = {{.epoch = 1, .seconds = 99}, {.epoch = 2, .seconds = 0.01}};
  const JsonValue json = json_in(html_of(run));
  EXPECT_DOUBLE_EQ(number(json.find("seconds")), 7);
  EXPECT_EQ(numbers(json.find("epochs")->find("seconds")), (std::vector<double>{1, 6}));
  EXPECT_EQ(numbers(json.find("epochs")->find("images_per_s")), (std::vector<double>{100, 25}));
  EXPECT_EQ(numbers(json.find("epochs")->find("wait_s")), (std::vector<double>{0.25, 0.375}));
}

TEST(Report, FiltersThatAreNotFiniteAreNotDrawn) {
  RunRecord run = tiny_run({});
  run.checkpoint.tensors["encoder_q.conv1.weight"].data<float>()[3] = NAN;
  EXPECT_FALSE(json_in(html_of(run)).find("filters"));
}

TEST(Report, TellsOfTheCheckpoint) {
  PretrainConfig config;
  config.symmetric = true;
  config.lr = 0.5;
  const JsonValue json = json_in(html_of(tiny_run(config)));
  EXPECT_EQ(number(json.find("saved_step")), 7);
  EXPECT_EQ(*json.find("kernels")->get<std::string>(), "plain");
  EXPECT_DOUBLE_EQ(number(json.find("guessed_loss")), 2 * std::log(16));
  EXPECT_DOUBLE_EQ(number(json.find("guessed_top1")), 6.25);
  EXPECT_NEAR(number(json.find("spread")), 1 / 3.0, 1e-12);
  for (const JsonValue& flag : *json.find("config")->get<JsonArray>()) {
    if (*flag.find("flag")->get<std::string>() != "lr") continue;
    EXPECT_EQ(*flag.find("value")->get<std::string>(), "0.5");
    EXPECT_EQ(*flag.find("usual")->get<std::string>(), "0.06");
  }
  const JsonArray& weights = *json.find("weights")->get<JsonArray>();
  ASSERT_EQ(weights.size(), 2U);  // not the running mean
  EXPECT_EQ(*weights[0].find("name")->get<std::string>(), "bn1.bias");
  EXPECT_TRUE(std::isnan(number(weights[0].find("lag"))));
  EXPECT_DOUBLE_EQ(number(weights[1].find("lag")), 3 / std::sqrt(100 + 125 + 6 * 4));
  const JsonArray& filters = *json.find("filters")->get<JsonArray>();
  ASSERT_EQ(filters.size(), 2U);
  EXPECT_EQ(number(filters[0].find("width")), 2);
  EXPECT_EQ(numbers(filters[0].find("pixels")), (std::vector<double>{0, 0, 128, 255, 0, 255}));
  EXPECT_EQ(numbers(filters[1].find("pixels")), std::vector<double>(6, 0));
}

TEST(Report, NeedsNothingButItselfAndEscapesWhatItHolds) {
  RunRecord run = tiny_run({});
  run.name = run.log = "</script><b>\"&lt;\\";
  const std::string page = html_of(run);
  EXPECT_EQ(page.find("<b>\""), std::string::npos);
  EXPECT_EQ(*json_in(page).find("name")->get<std::string>(), run.name);
  EXPECT_EQ(*json_in(page).find("log")->get<std::string>(), run.log);
  EXPECT_EQ(page.find("@DATA@"), std::string::npos);
  for (const char* remote : {"https:", "src=", "@import", "url(h", "<link"})
    EXPECT_EQ(page.find(remote), std::string::npos) << remote;
}

TEST(Report, OfWhatIsNoRunIsAnError) {
  RunRecord run = tiny_run({});
  run.checkpoint.metadata.clear();
  EXPECT_THROW(html_of(run), Error);
}

}  // namespace
}  // namespace mocograd
