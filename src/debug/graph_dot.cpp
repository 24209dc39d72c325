#include "debug/graph_files.h"

namespace mocograd {
namespace {

// A string of DOT, in which a backslash escapes and &name; stands for a character.
std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      result += {'\\', c};
    } else if (c == '&') {
      result += "&amp;";
    } else if (c == '\n') {
      result += "\\n";
    } else if (static_cast<unsigned char>(c) >= 0x20) {
      result += c;
    }
  }
  return result + '"';
}

const char* colour_of(const GraphNode& node) {
  if (!node.all_finite()) return "#fbd9d6";
  if (node.kind == GraphNodeKind::parameter) return "#fdf0cf";
  return node.needs_gradient ? "#dfeaf8" : "#eeeef0";
}

class DotWriter {
 public:
  explicit DotWriter(const Graph& graph) : graph_(graph), modules_(modules_of(graph)) {}

  std::string text() {
    out_ =
        "digraph step {\n"
        "  node [shape=box, style=\"rounded,filled\", fontname=Helvetica, fontsize=11];\n"
        "  graph [fontname=Helvetica, fontsize=12, style=rounded, color=\"#bcc6d0\"];\n"
        "  edge [color=\"#4a7fc1\"];\n";
    add_module(0, "  ");
    for (const GraphEdge& edge : graph_.edges)
      out_ += "  n" + std::to_string(edge.from) + " -> n" + std::to_string(edge.to) +
              (edge.gradient ? ";\n" : " [style=dashed, color=\"#93989f\"];\n");
    return out_ + "}\n";
  }

 private:
  void add_module(int index, const std::string& indent) {
    const GraphModule& module = modules_.modules[index];
    for (int node : module.nodes) add_node(node, indent);
    for (int child : module.modules) {
      out_ += indent + "subgraph cluster_" + std::to_string(child) + " {\n" + indent +
              "  label=" + quoted(modules_.modules[child].name) + ";\n";
      add_module(child, indent + "  ");
      out_ += indent + "}\n";
    }
  }

  void add_node(int index, const std::string& indent) {
    const GraphNode& node = graph_.nodes[index];
    std::string label = label_of(graph_, modules_, index) + "\n" + node.output.shape.to_string();
    if (!node.all_finite()) label += "\nNaN or Inf";
    const std::string style = node.needs_gradient ? "rounded,filled" : "rounded,filled,dashed";
    out_ += indent + "n" + std::to_string(index) + " [label=" + quoted(label) +
            ", tooltip=" + quoted(node.name + "\n" + node.source) + ", style=" + quoted(style) +
            ", fillcolor=" + quoted(colour_of(node)) + "];\n";
  }

  const Graph& graph_;
  const GraphModules modules_;
  std::string out_;
};

}  // namespace

std::string dot_of(const Graph& graph) {
  return DotWriter(graph).text();
}

}  // namespace mocograd
