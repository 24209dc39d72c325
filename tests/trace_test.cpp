// Names of operations, and traces.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <optional>
#include <set>
#include <sstream>

#include "cpu/parallel.h"
#include "debug/trace.h"
#include "io/json.h"
#include "temporary_directory.h"
#include "tiny_step.h"

namespace mocograd {
namespace {

using Names = std::vector<std::string>;

struct NameList : TraceSink {
  Names names, phases;
  void record(const TraceRecord& record) override {
    names.push_back(record.name);
    phases.push_back(name_of(record.operation->phase));
  }
};

constexpr int64_t kSteps = 2;

// Two steps under a tracer.
void trace_steps(TraceSink& sink, DType dtype = DType::f32) {
  const Unfused unfused;
  TinyStep step(dtype);
  Tracer tracer(sink);
  tracer.names().add_parameters(step.moco.encoder_q());
  for (int64_t s = 0; s < kSteps; ++s) {
    tracer.begin_step(s);
    const ObserverScope scope(tracer);
    step.run();
  }
}

std::string as_hash(int threads) {
  const int before = num_threads();
  set_num_threads(threads);
  TraceHash hash;
  trace_steps(hash);
  set_num_threads(before);
  return hash.value().text();
}

// ---- names ---------------------------------------------------------------------------------------

TEST(OperationNames, AreTheSameInEveryRunAndStep) {
  NameList first, second;
  trace_steps(first);
  trace_steps(second);
  EXPECT_EQ(first.names, second.names);
  const auto half = static_cast<std::ptrdiff_t>(first.names.size() / 2);
  // The second step's queue wraps around, which is one operation more.
  EXPECT_TRUE(
      std::equal(first.names.begin(), first.names.begin() + half, first.names.begin() + half));
}

TEST(OperationNames, TellOperationsApartWithinAPhase) {
  NameList list;
  trace_steps(list);
  std::set<std::string> seen;
  for (size_t i = 0; i < list.names.size() / kSteps; ++i)
    EXPECT_TRUE(seen.insert(list.phases[i] + " " + list.names[i]).second) << list.names[i];
  for (const char* expected :
       {"ema encoder_k.layer1.0.conv1.weight.ema", "forward encoder_q.layer2.0.downsample.0.conv2d",
        "forward encoder_q.layer1.0.relu#2", "backward encoder_q.layer1.0.relu#2",
        "forward l2_normalize#2", "backward cross_entropy", "optimizer encoder_q.fc.bias.sgd_step",
        "queue queue.enqueue"})
    EXPECT_TRUE(seen.contains(expected)) << expected;
}

// ---- trace ---------------------------------------------------------------------------------------

const JsonValue& member(const JsonValue& object, const char* name) {
  const JsonValue* value = object.find(name);
  if (!value) throw Error(std::string("no member ") + name);
  return *value;
}

std::set<std::string> members(const JsonValue& object) {
  std::set<std::string> names;
  for (const auto& [name, value] : *object.get<JsonMembers>()) names.insert(name);
  return names;
}

class TraceFile : public testing::TestWithParam<std::string> {
 protected:
  const TemporaryDirectory directory_;
  const std::string path_ = directory_.file("trace.jsonl");
};

// Every line has the fields that debug/trace.h promises for the level, and no others.
TEST_P(TraceFile, HasThePromisedFields) {
  {
    JsonTrace sink(path_, parse_trace_level(GetParam()));
    trace_steps(sink);
  }
  std::set<std::string> record = {"step",   "index",  "phase", "name", "op",
                                  "module", "source", "us",    "bytes"};
  if (GetParam() != "names") record.insert({"inputs", "outputs"});
  const std::set<std::string> input = {"id", "shape", "dtype"};
  std::set<std::string> output = input;
  if (GetParam() == "statistics")
    output.insert({"min", "max", "mean", "std", "l2", "nan", "inf", "hash"});

  std::ifstream file(path_);
  int64_t index = 0, step = 0, null_ids = 0;
  for (std::string line; std::getline(file, line); ++index) {
    const JsonValue json = parse_json(line);
    ASSERT_EQ(members(json), record) << line;
    EXPECT_EQ(*member(json, "index").get<int64_t>(), index);
    EXPECT_GE(*member(json, "step").get<int64_t>(), step);
    step = *member(json, "step").get<int64_t>();
    if (GetParam() == "names") continue;
    for (const JsonValue& tensor : *member(json, "inputs").get<JsonArray>())
      EXPECT_EQ(members(tensor), input) << line;
    for (const JsonValue& tensor : *member(json, "outputs").get<JsonArray>()) {
      const bool none = member(tensor, "id").get<int64_t>() == nullptr;
      EXPECT_EQ(members(tensor), none ? std::set<std::string>{"id"} : output) << line;
      null_ids += none;
    }
  }
  EXPECT_EQ(step, kSteps - 1);
  EXPECT_GT(index, 600);
  if (GetParam() != "names") {
    EXPECT_GT(null_ids, 0);  // the images need no gradient
  }
}

INSTANTIATE_TEST_SUITE_P(, TraceFile, testing::Values("names", "shapes", "statistics"),
                         [](const auto& info) { return info.param; });

TEST(Trace, OfNoFiniteNumberThereAreNoStatistics) {
  const TemporaryDirectory directory;
  const std::string path = directory.file("trace.jsonl");
  {
    JsonTrace sink(path, TraceLevel::statistics);
    Tracer tracer(sink);
    const ObserverScope scope(tracer);
    observe_update(Phase::optimizer, "fill", "x", {}, {Tensor::full({2}, NAN)});
  }
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  EXPECT_NE(line.find(R"("min":null,"max":null,"mean":null,"std":null,"l2":null,"nan":2,"inf":0)"),
            std::string::npos)
      << line;
}

// The same id stands for the same numbers: what an operation reads was written under that id.
TEST(Trace, IdsLeadFromReaderToWriter) {
  struct : TraceSink {
    std::map<int64_t, std::string> writer;
    std::string relu_reads;
    void record(const TraceRecord& record) override {
      for (const TraceTensor& output : record.outputs) {
        if (output.id == 0) continue;
        EXPECT_TRUE(writer.emplace(output.id, record.name).second)
            << "written twice: " << output.id;
      }
      if (record.name == "encoder_q.relu" && record.operation->phase == Phase::forward)
        relu_reads = writer[record.inputs[0].id];
    }
  } sink;
  trace_steps(sink);
  EXPECT_EQ(sink.relu_reads, "encoder_q.bn1.batch_norm");
}

TEST(Trace, AnAddressWithANewOwnerIsAnotherTensor) {
  struct : TraceSink {
    std::vector<int64_t> read;
    void record(const TraceRecord& record) override { read.push_back(record.inputs[0].id); }
  } sink;
  Tracer tracer(sink);
  const void* address = nullptr;
  for (const double value : {1.0, 2.0}) {
    const Tensor x = Tensor::full({64}, value);
    if (address && x.raw_bytes() != address) GTEST_SKIP() << "the backend gave other memory";
    address = x.raw_bytes();
    Operation reader;
    reader.inputs = {x};
    tracer.operation(reader);
    tracer.operation(reader);
  }
  EXPECT_EQ(sink.read[0], sink.read[1]);
  EXPECT_NE(sink.read[1], sink.read[2]);
  EXPECT_EQ(sink.read[2], sink.read[3]);
}

TEST(Trace, HashIsTheSameInEveryRunAndForAnyNumberOfThreads) {
  const std::string hash = as_hash(1);
  EXPECT_EQ(as_hash(1), hash);
  EXPECT_EQ(as_hash(2), hash);
  EXPECT_EQ(as_hash(3), hash);
}

TEST(Trace, HashTellsOneBitInOneOutput) {
  struct Flip : OperationObserver {
    void operation(const Operation& operation) override {
      if (operation.module != "encoder_q.fc" || operation.phase != Phase::forward) return;
      float& number = operation.outputs[0].data<float>()[5];
      number = std::nextafter(number, 10.0f);
    }
  } flip;
  const std::string hash = as_hash(1);
  const ObserverScope scope(flip);
  EXPECT_NE(as_hash(1), hash);
}

TEST(Trace, LevelsHaveNames) {
  EXPECT_EQ(parse_trace_level("shapes"), TraceLevel::shapes);
  EXPECT_THROW(parse_trace_level("all"), UsageError);
}

// Tracing does not fuse. Unfused operations without a tracer give the same to the last bit, fused
// ones, the default, to rounding.
TEST(Trace, ChangesNoNumber) {
  const auto gradients = [](bool fused, bool traced) {
    const bool before = use_fused_operations(fused);
    TinyStep step(DType::f64);
    NameList list;
    Tracer tracer(list);
    std::optional<ObserverScope> scope;
    if (traced) scope.emplace(tracer);
    std::vector<double> numbers = {step.run().loss};
    for (const NamedParameter& parameter : step.moco.encoder_q().named_parameters()) {
      for (const double x : parameter.variable->grad().to_vector()) numbers.push_back(x);
    }
    use_fused_operations(before);
    return numbers;
  };
  const std::vector<double> traced = gradients(false, true), fused = gradients(true, false);
  EXPECT_EQ(gradients(false, false), traced);
  ASSERT_EQ(fused.size(), traced.size());
  for (size_t i = 0; i < fused.size(); ++i) EXPECT_NEAR(fused[i], traced[i], 1e-11) << i;
}

}  // namespace
}  // namespace mocograd
