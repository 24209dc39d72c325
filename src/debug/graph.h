// The graph of one training step, recorded while it runs: what the operations computed from what,
// how gradients go back through it, and what it keeps in memory until they have.
//
//   node    an operation, a parameter, or another tensor that no operation of the step wrote
//   edge    a tensor that an operation reads. Where a gradient goes back along it the graph itself
//           tells where it comes from (Node::inputs), else the memory that it was written to.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "debug/operation_names.h"
#include "tensor/statistics.h"

namespace mocograd {

inline constexpr int kHistogramBins = 32;

struct TensorSummary {
  Shape shape;
  DType dtype = DType::f32;
  TensorStatistics statistics;
  std::vector<int64_t> histogram;  // kHistogramBins parts of [min, max]
};

TensorSummary summary_of(const Tensor& tensor);

// A tensor that an operation captured for its backward.
struct SavedTensor {
  int node = -1;  // whose output it is; -1: no node's (statistics, labels)
  Shape shape;
  DType dtype = DType::f32;
  int64_t bytes = 0;
};

enum class GraphNodeKind { operation, parameter, constant };

const char* name_of(GraphNodeKind kind);  // "operation"

struct GraphNode {
  GraphNodeKind kind = GraphNodeKind::operation;
  std::string name;    // "encoder_q.conv1.conv2d", "encoder_q.conv1.weight", "im_q"
  std::string op;      // "conv2d"; empty if it is none
  std::string module;  // "encoder_q.conv1"; empty outside of modules
  std::string source;  // "src/autograd/ops/conv2d.cpp:32"
  bool needs_gradient = false;
  TensorSummary output;
  std::optional<TensorSummary> gradient;  // ∂L/∂output, where it arrived
  std::vector<SavedTensor> saved;
  int64_t saved_bytes = 0;  // of its saved tensors

  bool all_finite() const;  // output and gradient
};

struct GraphEdge {
  int from = 0, to = 0;
  bool gradient = false;  // does one go back along it?
};

struct Graph {
  std::vector<GraphNode> nodes;  // in the order in which the step came to them
  std::vector<GraphEdge> edges;
  // What all operations together keep until the backward, each piece of memory counted once; and
  // what of it is parameters and constants, which would be there anyway.
  int64_t saved_bytes = 0, saved_leaf_bytes = 0;
};

// "3 operations with numbers that are not finite; kept for backward: …", one line
std::string text_of(const Graph& graph);

// Records one step. Holds every tensor that the forward touches until the step ends, so that memory
// used a second time is not mistaken for what was in it first.
class GraphRecorder : public OperationObserver {
 public:
  // Names for what no operation writes. A copy with the same numbers has the name too.
  void add_parameters(const Module& module);
  void add_constant(const std::string& name, const Tensor& tensor);

  void operation(const Operation& operation) override;
  Graph finish();

 private:
  struct Known {
    std::string name;
    Tensor tensor;
  };

  void forward(const Operation& operation);
  void backward(const Operation& operation);
  int producer(const Operation& operation, size_t input);
  int add_leaf(const Tensor& tensor, const Node* node);
  void add_saved(const OperationDetails& details, GraphNode& node);

  Graph graph_;
  OperationNames names_;
  std::map<const void*, std::string> parameters_;  // by memory
  std::vector<Known> constants_;
  int unnamed_ = 0;
  std::map<const Node*, int> by_node_;
  std::map<const void*, int> by_memory_;  // of the last operation that wrote there
  std::map<int, Tensor> leaf_gradients_;  // the sums so far
  std::vector<Tensor> held_;
  std::map<std::weak_ptr<const void>, int64_t, std::owner_less<>> saved_;  // bytes of each
};

// ---- modules ---------------------------------------------------------------------------------------

// The modules as boxes in boxes: those with one operation and no modules within get none.
struct GraphModule {
  std::string path;  // "encoder_q.layer1.0"
  std::string name;  // "0"
  int parent = -1;
  std::vector<int> modules, nodes;  // directly within
};

struct GraphModules {
  std::vector<GraphModule> modules;  // the first one is the root, every other after its parent
  std::vector<int> module_of;        // of each node
};

GraphModules modules_of(const Graph& graph);

// What a node is called within its box: "conv1.conv2d", "weight".
std::string label_of(const Graph& graph, const GraphModules& modules, int node);

}  // namespace mocograd
