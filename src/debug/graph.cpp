#include "debug/graph.h"

#include <algorithm>
#include <utility>

#include "debug/equal_tensor.h"
#include "debug/tensor_text.h"

namespace mocograd {
namespace {

std::string parent_of(const std::string& path) {
  const size_t dot = path.rfind('.');
  return dot == std::string::npos ? "" : path.substr(0, dot);
}

}  // namespace

const char* name_of(GraphNodeKind kind) {
  switch (kind) {
    case GraphNodeKind::operation:
      return "operation";
    case GraphNodeKind::parameter:
      return "parameter";
    case GraphNodeKind::constant:
      return "constant";
  }
  return "unknown";
}

TensorSummary summary_of(const Tensor& tensor) {
  TensorSummary summary{tensor.shape(), tensor.dtype(), statistics_of(tensor), {}};
  summary.histogram =
      histogram_of(tensor, summary.statistics.min, summary.statistics.max, kHistogramBins);
  return summary;
}

bool GraphNode::all_finite() const {
  return output.statistics.all_finite() && (!gradient || gradient->statistics.all_finite());
}

std::string text_of(const Graph& graph) {
  const auto bad = std::count_if(graph.nodes.begin(), graph.nodes.end(),
                                 [](const GraphNode& node) { return !node.all_finite(); });
  std::string text = std::to_string(graph.nodes.size()) + " nodes, " +
                     std::to_string(graph.edges.size()) +
                     " edges; kept for backward: " + memory_text(graph.saved_bytes) +
                     ", of which parameters and constants " + memory_text(graph.saved_leaf_bytes);
  if (bad > 0) text += "; not finite: " + std::to_string(bad) + " nodes";
  return text;
}

// ---- recording -------------------------------------------------------------------------------------

void GraphRecorder::add_parameters(const Module& module) {
  names_.add_parameters(module);
  for (const NamedParameter& parameter : module.named_parameters())
    parameters_[parameter.variable->data().raw_bytes()] = module.name() + "." + parameter.name;
}

void GraphRecorder::add_constant(const std::string& name, const Tensor& tensor) {
  if (tensor.defined()) constants_.push_back({name, tensor});
}

void GraphRecorder::operation(const Operation& operation) {
  if (operation.phase == Phase::forward) forward(operation);
  if (operation.phase == Phase::backward) backward(operation);
}

void GraphRecorder::forward(const Operation& operation) {
  std::vector<GraphEdge> edges;
  for (size_t i = 0; i < operation.inputs.size(); ++i) {
    const bool gradient = operation.node && operation.node->inputs[i];
    edges.push_back({producer(operation, i), 0, gradient});
  }
  const Tensor& output = operation.outputs[0];
  GraphNode node;
  node.name = names_.name(operation);
  node.op = operation.op;
  node.module = operation.module;
  node.source = source_of(operation);
  node.needs_gradient = operation.node != nullptr;
  node.output = summary_of(output);

  const int index = static_cast<int>(graph_.nodes.size());
  for (GraphEdge& edge : edges) {
    edge.to = index;
    graph_.edges.push_back(edge);
  }
  graph_.nodes.push_back(std::move(node));
  by_memory_[output.raw_bytes()] = index;
  held_.push_back(output);
  if (operation.node) {
    by_node_[operation.node] = index;
    if (operation.details) add_saved(*operation.details, graph_.nodes.back());
  }
}

void GraphRecorder::backward(const Operation& operation) {
  const auto found = by_node_.find(operation.node);
  if (found == by_node_.end()) return;  // of an earlier step
  if (std::string(operation.op) != "accumulate")
    graph_.nodes[found->second].gradient = summary_of(operation.inputs[0]);
  for (const std::shared_ptr<Node>& input : operation.node->inputs) {
    const auto leaf = by_node_.find(input.get());
    if (input && input->inputs.empty() && leaf != by_node_.end() && input->grad.defined())
      leaf_gradients_[leaf->second] = input->grad;
  }
}

// The node that wrote an input, or a new one for a leaf.
int GraphRecorder::producer(const Operation& operation, size_t input) {
  const Tensor& tensor = operation.inputs[input];
  const Node* node = operation.node ? operation.node->inputs[input].get() : nullptr;
  if (node) {
    const auto found = by_node_.find(node);
    return found != by_node_.end() ? found->second : add_leaf(tensor, node);
  }
  const auto found = by_memory_.find(tensor.raw_bytes());
  return found != by_memory_.end() ? found->second : add_leaf(tensor, nullptr);
}

int GraphRecorder::add_leaf(const Tensor& tensor, const Node* node) {
  const int index = static_cast<int>(graph_.nodes.size());
  GraphNode leaf;
  const auto parameter = parameters_.find(tensor.raw_bytes());
  leaf.kind =
      node || parameter != parameters_.end() ? GraphNodeKind::parameter : GraphNodeKind::constant;
  const auto constant = find_equal(constants_, tensor);
  if (parameter != parameters_.end()) {
    leaf.name = parameter->second;
    leaf.module = parent_of(leaf.name);
  } else if (constant != constants_.end()) {
    leaf.name = constant->name;
  } else {
    leaf.name = std::string(name_of(leaf.kind)) + "#" + std::to_string(++unnamed_);
  }
  leaf.needs_gradient = node != nullptr;
  leaf.output = summary_of(tensor);
  if (node) by_node_[node] = index;
  by_memory_[tensor.raw_bytes()] = index;
  held_.push_back(tensor);
  graph_.nodes.push_back(std::move(leaf));
  return index;
}

void GraphRecorder::add_saved(const OperationDetails& details, GraphNode& node) {
  for (const Tensor& tensor : details.saved) {
    if (!tensor.defined()) continue;
    const auto writer = by_memory_.find(tensor.raw_bytes());
    const auto bytes = static_cast<int64_t>(tensor.bytes());
    const int from = writer == by_memory_.end() ? -1 : writer->second;
    node.saved.push_back({from, tensor.shape(), tensor.dtype(), bytes});
    node.saved_bytes += bytes;
    held_.push_back(tensor);
    int64_t& counted = saved_[tensor.storage()];
    const int64_t more = std::max<int64_t>(0, bytes - counted);
    counted += more;
    graph_.saved_bytes += more;
    const bool leaf = from >= 0 && graph_.nodes[from].kind != GraphNodeKind::operation;
    if (leaf) graph_.saved_leaf_bytes += more;
  }
}

Graph GraphRecorder::finish() {
  for (const auto& [leaf, gradient] : leaf_gradients_)
    graph_.nodes[leaf].gradient = summary_of(gradient);
  held_.clear();
  return std::move(graph_);
}

// ---- modules ---------------------------------------------------------------------------------------

GraphModules modules_of(const Graph& graph) {
  std::map<std::string, int> operations;  // within each path, at any depth
  std::map<std::string, bool> has_modules;
  for (const GraphNode& node : graph.nodes) {
    for (std::string path = node.module; !path.empty(); path = parent_of(path)) {
      operations[path] += node.kind == GraphNodeKind::operation;
      has_modules[parent_of(path)] = true;
    }
  }

  GraphModules result;
  result.modules.push_back({});
  std::map<std::string, int> index = {{"", 0}};
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    std::vector<std::string> missing;
    std::string path = graph.nodes[i].module;
    if (!path.empty() && operations[path] == 1 && !has_modules[path]) path = parent_of(path);
    for (; !index.contains(path); path = parent_of(path)) missing.push_back(path);
    int module = index[path];
    for (; !missing.empty(); missing.pop_back()) {
      const std::string& made = missing.back();
      const int made_index = static_cast<int>(result.modules.size());
      result.modules[module].modules.push_back(made_index);
      result.modules.push_back({made, made.substr(made.rfind('.') + 1), module, {}, {}});
      module = index[made] = made_index;
    }
    result.modules[module].nodes.push_back(static_cast<int>(i));
    result.module_of.push_back(module);
  }
  return result;
}

std::string label_of(const Graph& graph, const GraphModules& modules, int node) {
  const std::string& box = modules.modules[modules.module_of[node]].path;
  return graph.nodes[node].name.substr(box.empty() ? 0 : box.size() + 1);
}

}  // namespace mocograd
