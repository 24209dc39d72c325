#include <algorithm>
#include <cmath>
#include <string_view>

#include "debug/graph_files.h"
#include "debug/graph_layout.h"
#include "debug/html_page.h"
#include "debug/statistics_json.h"

namespace mocograd {
namespace {

constexpr std::string_view kPage =
#include "debug/html/graph.html.inc"
    ;

JsonObject json_of(const TensorSummary& summary) {
  JsonObject json;
  json.add("shape", summary.shape.to_vector()).add("dtype", name_of(summary.dtype));
  return add_statistics(json, summary.statistics).add("histogram", summary.histogram);
}

JsonObject json_of(const SavedTensor& saved) {
  JsonObject json;
  return json.add("node", saved.node)
      .add("shape", saved.shape.to_vector())
      .add("dtype", name_of(saved.dtype))
      .add("bytes", saved.bytes);
}

JsonObject& add_place(JsonObject& json, const Rectangle& place) {
  return json.add("x", place.x)
      .add("y", place.y)
      .add("width", place.width)
      .add("height", place.height);
}

JsonObject json_of(const GraphNode& node, const std::string& label, const Rectangle& place) {
  std::vector<JsonObject> saved;
  for (const SavedTensor& tensor : node.saved) saved.push_back(json_of(tensor));
  JsonObject json;
  json.add("name", node.name)
      .add("label", label)
      .add("kind", name_of(node.kind))
      .add("source", node.source)
      .add("needs_gradient", node.needs_gradient)
      .add("finite", node.all_finite())
      .add("output", json_of(node.output))
      .add("saved", saved)
      .add("saved_bytes", node.saved_bytes);
  if (node.gradient) json.add("gradient", json_of(*node.gradient));
  return add_place(json, place);
}

// A path of SVG: a curve, or lines with rounded corners.
std::string path_text(const EdgePath& path) {
  const auto text_of = [](Point p) {
    return std::to_string(std::lround(p.x)) + " " + std::to_string(std::lround(p.y));
  };
  const std::vector<Point>& p = path.points;
  std::string text = "M" + text_of(p[0]);
  if (path.curved) return text + "C" + text_of(p[1]) + " " + text_of(p[2]) + " " + text_of(p[3]);
  const auto towards = [](Point from, Point to) {
    constexpr double kRadius = 8;
    const double length = std::hypot(to.x - from.x, to.y - from.y);
    const double part = length > 0 ? std::min(kRadius / length, 0.5) : 0;
    return Point{from.x + (to.x - from.x) * part, from.y + (to.y - from.y) * part};
  };
  for (size_t i = 1; i + 1 < p.size(); ++i)
    text += "L" + text_of(towards(p[i], p[i - 1])) + "Q" + text_of(p[i]) + " " +
            text_of(towards(p[i], p[i + 1]));
  return text + "L" + text_of(p.back());
}

// What a module holds at any depth.
struct ModuleTotals {
  int operations = 0, direct_operations = 0;  // the latter not within a module of its own
  int64_t saved_bytes = 0;
};

std::vector<ModuleTotals> totals_of(const Graph& graph, const GraphModules& modules) {
  std::vector<ModuleTotals> totals(modules.modules.size());
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const int operations = graph.nodes[i].kind == GraphNodeKind::operation;
    totals[modules.module_of[i]].direct_operations += operations;
    for (int m = modules.module_of[i]; m >= 0; m = modules.modules[m].parent) {
      totals[m].operations += operations;
      totals[m].saved_bytes += graph.nodes[i].saved_bytes;
    }
  }
  return totals;
}

// Where a module's label stands when the picture is too small for nodes: in the middle of the
// largest ones that are mostly operations of their own (the blocks of a ResNet), in a corner of the
// outermost, nowhere else.
std::vector<std::string> overview_labels(const GraphModules& modules,
                                         const std::vector<ModuleTotals>& totals) {
  std::vector<std::string> labels(modules.modules.size());
  for (size_t m = 1; m < modules.modules.size(); ++m) {
    int outer = modules.modules[m].parent;
    if (outer == 0) labels[m] = "corner";
    if (2 * totals[m].direct_operations < totals[m].operations) continue;
    while (outer > 0 && labels[outer] != "middle") outer = modules.modules[outer].parent;
    if (outer <= 0) labels[m] = "middle";
  }
  return labels;
}

std::string json_text(const Graph& graph, const std::string& title) {
  const GraphModules modules = modules_of(graph);
  const GraphLayout layout = lay_out(graph, modules);
  const std::vector<ModuleTotals> totals = totals_of(graph, modules);
  const std::vector<std::string> overview = overview_labels(modules, totals);
  std::vector<JsonObject> nodes, edges, boxes;
  for (size_t i = 0; i < graph.nodes.size(); ++i)
    nodes.push_back(
        json_of(graph.nodes[i], label_of(graph, modules, static_cast<int>(i)), layout.nodes[i]));
  for (size_t i = 0; i < graph.edges.size(); ++i) {
    JsonObject json;
    edges.push_back(json.add("from", graph.edges[i].from)
                        .add("to", graph.edges[i].to)
                        .add("gradient", graph.edges[i].gradient)
                        .add("path", path_text(layout.edges[i])));
  }
  for (size_t m = 1; m < modules.modules.size(); ++m) {
    const GraphModule& module = modules.modules[m];
    JsonObject json;
    json.add("path", module.path)
        .add("name", module.name)
        .add("overview", overview[m])
        .add("operations", totals[m].operations)
        .add("saved_bytes", totals[m].saved_bytes);
    boxes.push_back(add_place(json, layout.modules[m]));
  }
  JsonObject json;
  return json.add("title", title)
      .add("summary", text_of(graph))
      .add("width", layout.modules[0].width)
      .add("height", layout.modules[0].height)
      .add("nodes", nodes)
      .add("edges", edges)
      .add("modules", boxes)
      .text();
}

}  // namespace

std::string html_of(const Graph& graph, const std::string& title) {
  return page_with(kPage, json_text(graph, title));
}

}  // namespace mocograd
