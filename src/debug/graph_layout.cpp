#include "debug/graph_layout.h"

#include <algorithm>
#include <map>
#include <utility>

namespace mocograd {
namespace {

constexpr double kGap = 26;                   // between what reads and what is read
constexpr double kLaneGap = 30;               // between columns
constexpr double kPadding = 14, kTitle = 22;  // of a box
constexpr double kShortcutLane = 22;          // free at the right of a box
constexpr double kOperationHeight = 36, kLeafHeight = 20, kLeafGap = 4;
constexpr double kCharacter = 6.7, kLeafCharacter = 5.6;  // width, generously

// A node with its parameters, or the box of a module. Coordinates are its own until it is placed.
struct Item {
  int node = -1, module = -1;
  double width = 0, height = 0;
  double anchor = 0;  // x of the line that a column is aligned on
  double x = 0, y = 0;
  int lane = 0;
};

class LayoutBuilder {
 public:
  LayoutBuilder(const Graph& graph, const GraphModules& modules)
      : graph_(graph), modules_(modules) {
    layout_.nodes.resize(graph.nodes.size());
    layout_.modules.resize(modules.modules.size());
    items_.resize(modules.modules.size());
    find_first_nodes();
    attach_leaves();
  }

  GraphLayout run() {
    // Every module after its parent: from the innermost ones outwards, then back with the places.
    for (size_t m = modules_.modules.size(); m-- > 0;) arrange(static_cast<int>(m));
    for (size_t m = 0; m < modules_.modules.size(); ++m) place(static_cast<int>(m));
    layout_.edges = route_edges(graph_, layout_.nodes);
    return std::move(layout_);
  }

 private:
  // The order of the items of a module is that in which the step came to them.
  void find_first_nodes() {
    first_node_.assign(modules_.modules.size(), static_cast<int>(graph_.nodes.size()));
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      for (int m = modules_.module_of[i]; m >= 0; m = modules_.modules[m].parent)
        first_node_[m] = std::min(first_node_[m], static_cast<int>(i));
    }
  }

  // A leaf stands beside the operation that first reads it, if both are in the same box.
  void attach_leaves() {
    attached_.resize(graph_.nodes.size());
    is_attached_.resize(graph_.nodes.size());
    std::vector<bool> seen(graph_.nodes.size());
    for (const GraphEdge& edge : graph_.edges) {
      if (graph_.nodes[edge.from].kind == GraphNodeKind::operation || seen[edge.from]) continue;
      seen[edge.from] = true;
      if (modules_.module_of[edge.from] != modules_.module_of[edge.to]) continue;
      attached_[edge.to].push_back(edge.from);
      is_attached_[edge.from] = true;
    }
  }

  void measure(int node) {
    const bool leaf = graph_.nodes[node].kind != GraphNodeKind::operation;
    const std::string label = label_of(graph_, modules_, node);
    const std::string shape = graph_.nodes[node].output.shape.to_string();
    const size_t length =
        leaf ? label.size() + 1 + shape.size() : std::max(label.size(), shape.size());
    Rectangle& box = layout_.nodes[node];
    box.width = leaf ? static_cast<double>(length) * kLeafCharacter + 16
                     : std::max(128.0, static_cast<double>(length) * kCharacter + 20);
    box.height = leaf ? kLeafHeight : kOperationHeight;
  }

  Item node_item(int node) {
    measure(node);
    const Rectangle& box = layout_.nodes[node];
    double leaves_width = 0, leaves_height = -kLeafGap;
    for (int leaf : attached_[node]) {
      measure(leaf);
      leaves_width = std::max(leaves_width, layout_.nodes[leaf].width + kGap);
      leaves_height += kLeafHeight + kLeafGap;
    }
    return {.node = node,
            .width = leaves_width + box.width,
            .height = std::max(box.height, leaves_height),
            .anchor = leaves_width + box.width / 2};
  }

  std::vector<Item> items_of(int module) {
    std::vector<std::pair<int, Item>> ordered;
    for (int child : modules_.modules[module].modules) {
      const Rectangle& box = layout_.modules[child];
      ordered.push_back(
          {first_node_[child],
           {.module = child, .width = box.width, .height = box.height, .anchor = anchors_[child]}});
    }
    for (int node : modules_.modules[module].nodes) {
      if (!is_attached_[node]) ordered.push_back({node, node_item(node)});
    }
    std::sort(ordered.begin(), ordered.end(),
              [](const auto& a, const auto& b) { return a.first < b.first; });
    std::vector<Item> items;
    for (const auto& [first, item] : ordered) items.push_back(item);
    return items;
  }

  // For each item of a module the items that it reads, without edges against the order.
  std::vector<std::vector<int>> reads(int module, const std::vector<Item>& items) const {
    std::map<int, int> item_of_node, item_of_module;
    for (size_t i = 0; i < items.size(); ++i)
      (items[i].node >= 0 ? item_of_node[items[i].node] : item_of_module[items[i].module]) =
          static_cast<int>(i);
    const auto item_of = [&](int node) {
      int inner = modules_.module_of[node];
      if (inner == module) {
        const auto found = item_of_node.find(node);
        return found == item_of_node.end() ? -1 : found->second;
      }
      while (inner >= 0 && modules_.modules[inner].parent != module)
        inner = modules_.modules[inner].parent;
      return inner < 0 ? -1 : item_of_module.at(inner);
    };
    std::vector<std::vector<int>> result(items.size());
    for (const GraphEdge& edge : graph_.edges) {
      const int from = item_of(edge.from), to = item_of(edge.to);
      if (from >= 0 && to >= 0 && from < to) result[to].push_back(from);
    }
    return result;
  }

  // Gives the items of a module a lane and a y, then the lanes an x.
  void arrange(int module) {
    std::vector<Item> items = items_of(module);
    const std::vector<std::vector<int>> read = reads(module, items);
    const double top = module == 0 ? kPadding : kPadding + kTitle;
    std::vector<std::vector<const Item*>> lanes;
    const auto is_free = [&](size_t lane, const Item& item) {
      return std::all_of(lanes[lane].begin(), lanes[lane].end(), [&](const Item* other) {
        return item.y >= other->y + other->height + kGap / 2 ||
               other->y >= item.y + item.height + kGap / 2;
      });
    };
    for (size_t i = 0; i < items.size(); ++i) {
      Item& item = items[i];
      item.y = top;
      for (int other : read[i])
        item.y = std::max(item.y, items[other].y + items[other].height + kGap);
      size_t lane = read[i].empty() ? 0 : static_cast<size_t>(items[read[i][0]].lane);
      if (lane >= lanes.size() || !is_free(lane, item)) {
        lane = 0;
        while (lane < lanes.size() && !is_free(lane, item)) ++lane;
      }
      if (lane == lanes.size()) lanes.push_back({});
      item.lane = static_cast<int>(lane);
      lanes[lane].push_back(&item);
    }
    align(module, items, lanes);
  }

  void align(int module, std::vector<Item>& items,
             const std::vector<std::vector<const Item*>>& lanes) {
    double left = kPadding, bottom = 0;
    for (size_t lane = 0; lane < lanes.size(); ++lane) {
      double before = 0, after = 0;
      for (const Item* item : lanes[lane]) {
        before = std::max(before, item->anchor);
        after = std::max(after, item->width - item->anchor);
        bottom = std::max(bottom, item->y + item->height);
      }
      for (Item& item : items) {
        if (item.lane == static_cast<int>(lane)) item.x = left + before - item.anchor;
      }
      if (lane == 0) anchors_[module] = left + before;
      left += before + after + kLaneGap;
    }
    Rectangle& box = layout_.modules[module];
    box.width = left - kLaneGap + kShortcutLane + kPadding;
    box.height = bottom + kPadding;
    items_[module] = std::move(items);
  }

  void place(int module) {
    const Rectangle& box = layout_.modules[module];
    for (const Item& item : items_[module]) {
      const double x = box.x + item.x, y = box.y + item.y;
      if (item.module >= 0) {
        layout_.modules[item.module].x = x;
        layout_.modules[item.module].y = y;
        continue;
      }
      Rectangle& node = layout_.nodes[item.node];
      node.x = x + item.width - node.width;
      node.y = y + (item.height - node.height) / 2;
      const std::vector<int>& leaves = attached_[item.node];
      const double leaves_height =
          static_cast<double>(leaves.size()) * (kLeafHeight + kLeafGap) - kLeafGap;
      double leaf_y = y + (item.height - leaves_height) / 2;
      for (int leaf : leaves) {
        layout_.nodes[leaf].x = node.x - kGap - layout_.nodes[leaf].width;
        layout_.nodes[leaf].y = leaf_y;
        leaf_y += kLeafHeight + kLeafGap;
      }
    }
  }

  const Graph& graph_;
  const GraphModules& modules_;
  GraphLayout layout_;
  std::vector<int> first_node_;             // of each module
  std::vector<std::vector<int>> attached_;  // the leaves beside each node
  std::vector<bool> is_attached_;
  std::vector<std::vector<Item>> items_;  // of each module
  std::map<int, double> anchors_;         // of each module
};

}  // namespace

GraphLayout lay_out(const Graph& graph, const GraphModules& modules) {
  return LayoutBuilder(graph, modules).run();
}

}  // namespace mocograd
