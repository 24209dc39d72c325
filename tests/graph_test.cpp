// The graph of a step: what is recorded, and the pictures.
#include "debug/graph.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <set>

#include "autograd/gradcheck.h"
#include "autograd/ops/linear.h"
#include "autograd/ops/pointwise.h"
#include "autograd/ops/rows.h"
#include "debug/graph_files.h"
#include "debug/graph_layout.h"
#include "io/json.h"
#include "moco/moco.h"
#include "nn/layers.h"
#include "tiny_data.h"

namespace mocograd {
namespace {

int count(const std::string& text, const std::string& part) {
  int found = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

const GraphNode& find(const Graph& graph, const std::string& name) {
  for (const GraphNode& node : graph.nodes) {
    if (node.name == name) return node;
  }
  throw Error("no node " + name);
}

// "reader <- read, …" of every edge, ! where no gradient goes back
std::set<std::string> edges_of(const Graph& graph) {
  std::set<std::string> edges;
  for (const GraphEdge& edge : graph.edges)
    edges.insert(graph.nodes[edge.to].name + (edge.gradient ? " <- " : " <-! ") +
                 graph.nodes[edge.from].name);
  return edges;
}

// relu(x · wᵀ + b), with a module of its own name.
class Tiny : public Module {
 public:
  explicit Tiny(const std::string& name) : Module(name), random_(1, Purpose::test) {
    register_module("fc", fc_);
  }

 protected:
  Variable forward(const Variable& x) override { return relu(fc_(x)); }

 private:
  RandomStream random_;
  Linear fc_{3, 4, random_};
};

Graph tiny_graph(const std::string& name = "net", double value = 0.5) {
  Tiny net(name);
  const Tensor x = Tensor::full({2, 3}, value);
  GraphRecorder recorder;
  recorder.add_parameters(net);
  recorder.add_constant("x", x);
  const ObserverScope scope(recorder);
  const Variable y = net(Variable(x));
  sum(multiply(y, y)).backward();
  return recorder.finish();
}

TEST(Graph, NodesEdgesAndGradients) {
  const Graph graph = tiny_graph();
  const std::set<std::string> expected = {
      "net.fc.linear <-! x",       "net.fc.linear <- net.fc.weight", "net.fc.linear <- net.fc.bias",
      "net.relu <- net.fc.linear", "multiply <- net.relu",           "sum <- multiply"};
  EXPECT_EQ(edges_of(graph), expected);
  EXPECT_EQ(graph.edges.size(), 7u);  // multiply reads one tensor twice
  EXPECT_EQ(graph.nodes.size(), 7u);

  const GraphNode& linear = find(graph, "net.fc.linear");
  EXPECT_EQ(linear.kind, GraphNodeKind::operation);
  EXPECT_EQ(linear.op, "linear");
  EXPECT_EQ(linear.module, "net.fc");
  EXPECT_TRUE(linear.source.starts_with("src/autograd/ops/linear.cpp:"));
  EXPECT_EQ(linear.output.shape, Shape({2, 4}));
  ASSERT_TRUE(linear.gradient);

  const GraphNode& weight = find(graph, "net.fc.weight");
  EXPECT_EQ(weight.kind, GraphNodeKind::parameter);
  EXPECT_TRUE(weight.needs_gradient);
  ASSERT_TRUE(weight.gradient);
  EXPECT_EQ(weight.gradient->shape, Shape({4, 3}));

  const GraphNode& x = find(graph, "x");
  EXPECT_EQ(x.kind, GraphNodeKind::constant);
  EXPECT_FALSE(x.needs_gradient);
  EXPECT_FALSE(x.gradient);
  for (const GraphNode& node : graph.nodes) EXPECT_TRUE(node.all_finite()) << node.name;
}

TEST(Graph, TheGradientOfAParameterUsedTwiceIsTheSum) {
  const Variable w(Tensor::full({2}, 3), true);
  GraphRecorder recorder;
  const ObserverScope scope(recorder);
  sum(add(w, scale(w, 4))).backward();
  const Graph graph = recorder.finish();
  EXPECT_EQ(find(graph, "parameter#1").gradient->statistics.mean, 5);
  EXPECT_EQ(find(graph, "add").gradient->statistics.mean, 1);
}

TEST(Graph, MemoryUsedAgainIsNotMistakenForWhatWasThere) {
  GraphRecorder recorder;
  const ObserverScope scope(recorder);
  relu(Variable(Tensor::full({64}, 1)));
  scale(Variable(Tensor::full({64}, 2)), 3);  // where the relu's result was, if it were free
  const std::set<std::string> expected = {"relu <-! constant#1", "scale <-! constant#2"};
  EXPECT_EQ(edges_of(recorder.finish()), expected);
}

TEST(Graph, Histogram) {
  const double nan = std::nan(""), inf = std::numeric_limits<double>::infinity();
  const Tensor x = Tensor::from({0, 0.9, 1, 3.9, 4, nan, inf, -inf}, {8});
  EXPECT_EQ(histogram_of(x, 0, 4, 4), (std::vector<int64_t>{2, 1, 0, 2}));
  EXPECT_EQ(histogram_of(Tensor::full({3}, 7), 7, 7, 2), (std::vector<int64_t>{3, 0}));
  const double most = std::numeric_limits<double>::max();
  const Tensor widest = Tensor::from({-most, 0, most}, {3}, {.dtype = DType::f64});
  EXPECT_EQ(histogram_of(widest, -most, most, 2), (std::vector<int64_t>{1, 2}));
}

TEST(Graph, WhatIsNotFiniteIsMarked) {
  const Graph graph = tiny_graph("net", std::nan(""));
  EXPECT_FALSE(find(graph, "x").all_finite());
  EXPECT_FALSE(find(graph, "sum").all_finite());
  EXPECT_TRUE(find(graph, "net.fc.weight").output.statistics.all_finite());
  EXPECT_FALSE(find(graph, "net.fc.weight").all_finite());  // its gradient
  EXPECT_TRUE(find(graph, "multiply").output.histogram == std::vector<int64_t>(kHistogramBins));
  // Not the bias: where y is not positive, and a NaN is not, relu passes no gradient on.
  EXPECT_TRUE(find(graph, "net.fc.bias").all_finite());
  EXPECT_NE(text_of(graph).find("not finite: 6 nodes"), std::string::npos) << text_of(graph);
  EXPECT_EQ(count(dot_of(graph), "NaN or Inf"), 6);
  EXPECT_EQ(count(html_of(graph, ""), "\"finite\":false"), 6);
}

// ---- a step -------------------------------------------------------------------------------------

MocoConfig tiny_moco(bool symmetric = false) {
  MocoConfig config;
  config.encoder = {.arch = "resnet20", .width = 2, .dim = 4};
  config.queue_size = 8;
  config.symmetric = symmetric;
  return config;
}

Tensor random_images(uint32_t sample) {
  RandomStream random(1, Purpose::test, 0, sample);
  return random_normal(random, {4, 8, 8, 3}).to(DType::f32);
}

class StepGraph : public testing::Test {
 protected:
  StepGraph() { use_fused_operations(false); }
  ~StepGraph() override { use_fused_operations(true); }

  static Graph record(const MocoConfig& config) {
    Moco moco(config, 1);
    const ViewPair views{random_images(0), random_images(1), {}, {}};
    GraphRecorder recorder;
    recorder.add_parameters(moco.encoder_q());
    recorder.add_parameters(moco.encoder_k());
    recorder.add_constant("im_q", views.im_q);
    recorder.add_constant("im_k", views.im_k);
    recorder.add_constant("queue", moco.queue().keys());
    const ObserverScope scope(recorder);
    moco.forward_backward(views);
    return recorder.finish();
  }
};

TEST_F(StepGraph, KeyEncoderHasNoGradients) {
  const Graph graph = record(tiny_moco());
  int parameters = 0;
  for (const GraphNode& node : graph.nodes) {
    const bool key = node.name.starts_with("encoder_k");
    if (key) {
      EXPECT_FALSE(node.needs_gradient) << node.name;
      EXPECT_TRUE(node.saved.empty() && !node.gradient) << node.name;
    }
    if (node.name.starts_with("encoder_q")) {
      EXPECT_TRUE(node.needs_gradient && node.gradient) << node.name;
    }
    parameters += node.kind == GraphNodeKind::parameter;
  }
  Moco moco(tiny_moco(), 1);
  EXPECT_EQ(parameters, static_cast<int>(2 * moco.encoder_q().named_parameters().size()));
  // Of each tensor that the step was told of one node, the copy of the queue among them.
  EXPECT_EQ(find(graph, "queue").kind, GraphNodeKind::constant);
  EXPECT_TRUE(edges_of(graph).contains("matmul_transposed <-! queue"));
  EXPECT_TRUE(edges_of(graph).contains("encoder_q.conv1.conv2d <-! im_q"));
  EXPECT_TRUE(edges_of(graph).contains("encoder_k.conv1.conv2d <-! im_k"));
  EXPECT_TRUE(edges_of(graph).contains("encoder_q.layer1.0.add <- encoder_q.relu"));
}

// A relu saves its output, which the convolution after it saves too: counted once.
TEST_F(StepGraph, SavedMemoryIsCountedOnce) {
  const Graph graph = record(tiny_moco());
  int64_t sum = 0, parameters = 0;
  for (const GraphNode& node : graph.nodes) {
    sum += node.saved_bytes;
    if (node.kind == GraphNodeKind::parameter && node.needs_gradient &&
        node.name.ends_with(".weight"))
      parameters += node.output.shape.numel() * 4;
  }
  EXPECT_LT(graph.saved_bytes, sum);
  const GraphNode& relu = find(graph, "encoder_q.layer1.0.relu");
  ASSERT_EQ(relu.saved.size(), 1u);
  EXPECT_EQ(graph.nodes[relu.saved[0].node].name, relu.name);
  EXPECT_EQ(relu.saved_bytes, relu.output.shape.numel() * 4);
  // Weights and gammas; beside them the images that conv1 saved, the queue.
  const int64_t constants = (4 * 8 * 8 * 3 + 8 * 4) * 4;
  EXPECT_EQ(graph.saved_leaf_bytes, parameters + constants);
}

// ---- pictures --------------------------------------------------------------------------------------

JsonValue json_in(const std::string& page) {
  const std::string begin = "<script type=\"application/json\" id=\"data\">";
  const size_t from = page.find(begin) + begin.size();
  return parse_json(page.substr(from, page.find("</script>", from) - from));
}

TEST_F(StepGraph, PageHoldsEveryNodeOnce) {
  const Graph graph = record(tiny_moco());
  const JsonValue json = json_in(html_of(graph, "a step"));
  const JsonArray& nodes = *json.find("nodes")->get<JsonArray>();
  ASSERT_EQ(nodes.size(), graph.nodes.size());
  std::set<std::string> names;
  for (const JsonValue& node : nodes) names.insert(*node.find("name")->get<std::string>());
  EXPECT_EQ(names.size(), graph.nodes.size());
  EXPECT_EQ(json.find("edges")->get<JsonArray>()->size(), graph.edges.size());
}

bool overlap(const Rectangle& a, const Rectangle& b) {
  return a.x < b.right() && b.x < a.right() && a.y < b.bottom() && b.y < a.bottom();
}

bool contains(const Rectangle& box, const Rectangle& node) {
  return box.x < node.x && node.right() < box.right() && box.y < node.y &&
         node.bottom() < box.bottom();
}

TEST_F(StepGraph, NodesStandInTheirBoxesAndNothingOverlaps) {
  for (const bool symmetric : {false, true}) {
    const Graph graph = record(tiny_moco(symmetric));
    const GraphModules modules = modules_of(graph);
    const GraphLayout layout = lay_out(graph, modules);
    for (size_t i = 0; i < layout.nodes.size(); ++i) {
      const GraphNode& node = graph.nodes[i];
      for (size_t k = 0; k < i; ++k) {
        EXPECT_FALSE(overlap(layout.nodes[i], layout.nodes[k]))
            << node.name << ", " << graph.nodes[k].name;
      }
      for (size_t m = 1; m < modules.modules.size(); ++m) {
        const std::string& path = modules.modules[m].path;
        const bool inside = (node.module + ".").starts_with(path + ".");
        EXPECT_EQ(contains(layout.modules[m], layout.nodes[i]), inside)
            << node.name << ", " << path;
        EXPECT_EQ(overlap(layout.modules[m], layout.nodes[i]), inside) << node.name << ", " << path;
      }
    }
    for (const GraphEdge& edge : graph.edges) {  // what reads stands below what it reads
      if (graph.nodes[edge.from].kind != GraphNodeKind::operation) continue;
      EXPECT_LT(layout.nodes[edge.from].bottom(), layout.nodes[edge.to].y)
          << graph.nodes[edge.to].name;
    }
  }
}

constexpr const char* kEvilName = "</script><b>\"&lt;\\";

TEST(GraphPage, NamesAreEscaped) {
  const Graph graph = tiny_graph(kEvilName);
  const std::string page = html_of(graph, kEvilName);
  EXPECT_EQ(page.find("<b>"), std::string::npos);
  EXPECT_EQ(count(page, "</script>"), 3);  // the data, what the pages share, and the page's own
  const JsonValue json = json_in(page);
  EXPECT_EQ(*json.find("title")->get<std::string>(), kEvilName);
  EXPECT_EQ(page.find("@DATA@"), std::string::npos);
  for (const char* remote : {"http:", "https:", "src=", "@import", "url(h"})
    EXPECT_EQ(count(page, remote), count(page, std::string(remote) + "//www.w3.org/2000/svg'"))
        << remote;
}

// Strings closed, brackets paired.
bool balanced(const std::string& dot) {
  int braces = 0, brackets = 0;
  bool quoted = false;
  for (size_t i = 0; i < dot.size(); ++i) {
    if (quoted && dot[i] == '\\') {
      ++i;
    } else if (dot[i] == '"') {
      quoted = !quoted;
    } else if (!quoted) {
      braces += (dot[i] == '{') - (dot[i] == '}');
      brackets += (dot[i] == '[') - (dot[i] == ']');
    }
    if (braces < 0 || brackets < 0) return false;
  }
  return !quoted && braces == 0 && brackets == 0;
}

void expect_valid_dot(const std::string& dot, size_t nodes) {
  EXPECT_TRUE(balanced(dot));
  if (std::system("command -v dot >/dev/null") != 0) return;
  const TemporaryDirectory directory;
  std::ofstream(directory.file("graph.dot")) << dot;
  const std::string command =
      "dot -Tsvg " + directory.file("graph.dot") + " -o " + directory.file("graph.svg") + " 2>&1";
  ASSERT_EQ(std::system(command.c_str()), 0);
  std::ifstream stream(directory.file("graph.svg"));
  const std::string svg((std::istreambuf_iterator<char>(stream)), {});
  EXPECT_EQ(count(svg, "class=\"node\""), static_cast<int>(nodes));
}

TEST(GraphDot, IsValidWhateverTheNames) {
  for (const char* name : {"net", kEvilName, "}\n{"}) {
    const Graph graph = tiny_graph(name);
    const std::string dot = dot_of(graph);
    EXPECT_EQ(count(dot, "[label="), 7);
    EXPECT_EQ(count(dot, " -> "), 7);
    EXPECT_EQ(count(dot, "subgraph cluster_"), 1);  // net; net.fc has one operation
    expect_valid_dot(dot, graph.nodes.size());
  }
}

TEST_F(StepGraph, DotOfAStep) {
  const Graph graph = record(tiny_moco());
  expect_valid_dot(dot_of(graph), graph.nodes.size());
}

}  // namespace
}  // namespace mocograd
