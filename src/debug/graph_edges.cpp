// The paths of a graph's edges (debug/graph_layout.h).
#include <algorithm>
#include <cmath>

#include "debug/graph_layout.h"

namespace mocograd {
namespace {

constexpr double kClearance = 4;  // between an edge and a node that it passes
constexpr double kTurn = 12;      // from a node to where its edge turns aside
constexpr double kArc = 40;
constexpr double kLaneStep = 9;  // between detours side by side
constexpr int kCurveSamples = 32;

class Router {
 public:
  Router(const Graph& graph, const std::vector<Rectangle>& nodes) : graph_(graph), nodes_(nodes) {}

  EdgePath route(const GraphEdge& edge) {
    const Rectangle &from = nodes_[edge.from], &to = nodes_[edge.to];
    const bool leaf = graph_.nodes[edge.from].kind != GraphNodeKind::operation;
    if (leaf && from.right() < to.x && from.y < to.bottom() && to.y < from.bottom() + kTurn) {
      const EdgePath line = beside(from, to);
      return clear(line, edge) ? line : arc_below(line);
    }
    const Point start{from.x + from.width / 2, from.bottom()}, end{to.x + to.width / 2, to.y};
    if (end.y > start.y) {
      if (std::fabs(start.x - end.x) < 1) {
        const EdgePath line{false, {start, end}};
        if (clear(line, edge)) return line;
      }
      const double bend = std::min((end.y - start.y) / 2, 60.0);
      const EdgePath curve{true, {start, {start.x, start.y + bend}, {end.x, end.y - bend}, end}};
      if (clear(curve, edge)) return curve;
    }
    return detour(edge, start);
  }

 private:
  static EdgePath beside(const Rectangle& from, const Rectangle& to) {
    const double y = from.y + from.height / 2;
    return {false, {{from.right(), y}, {to.x, std::clamp(y, to.y + 6, to.bottom() - 6)}}};
  }

  // For a parameter that several operations side by side read.
  static EdgePath arc_below(const EdgePath& line) {
    const Point start = line.points[0], end = line.points[1];
    const double y = std::max(start.y, end.y) + kArc;
    return {true, {start, {start.x + kArc, y}, {end.x - kArc, y}, end}};
  }

  // Down or up in a lane to the right of everything between, and into the right side of `to`.
  EdgePath detour(const GraphEdge& edge, Point start) {
    const Rectangle& to = nodes_[edge.to];
    const double turn_y = start.y + kTurn, end_y = to.y + to.height / 2;
    EdgePath best;
    for (double x = std::max(to.right() + kTurn, start.x);; x += kLaneStep) {
      best = {false, {start, {start.x, turn_y}, {x, turn_y}, {x, end_y}, {to.right(), end_y}}};
      const bool beyond = x > rightmost() + kTurn;  // nothing stands there: the lines across decide
      if (beyond || (lane_is_free(x, turn_y, end_y) && clear(best, edge))) {
        lanes_.push_back({x, std::min(turn_y, end_y), 0, std::fabs(end_y - turn_y)});
        return best;
      }
    }
  }

  bool lane_is_free(double x, double y1, double y2) const {
    return std::none_of(lanes_.begin(), lanes_.end(), [&](const Rectangle& lane) {
      return std::fabs(lane.x - x) < kLaneStep - 1 && std::min(y1, y2) < lane.bottom() &&
             lane.y < std::max(y1, y2);
    });
  }

  double rightmost() const {
    double x = 0;
    for (const Rectangle& node : nodes_) x = std::max(x, node.right());
    return x;
  }

  bool clear(const EdgePath& path, const GraphEdge& edge) const {
    const std::vector<Point> points = path.curved ? samples(path.points) : path.points;
    for (size_t n = 0; n < nodes_.size(); ++n) {
      if (static_cast<int>(n) == edge.from || static_cast<int>(n) == edge.to) continue;
      for (size_t i = 1; i < points.size(); ++i) {
        if (crosses(points[i - 1], points[i], nodes_[n])) return false;
      }
    }
    return true;
  }

  // By the rectangle around the line, which for short pieces and for those along an axis is exact.
  static bool crosses(Point a, Point b, const Rectangle& node) {
    return std::max(a.x, b.x) > node.x - kClearance &&
           std::min(a.x, b.x) < node.right() + kClearance &&
           std::max(a.y, b.y) > node.y - kClearance &&
           std::min(a.y, b.y) < node.bottom() + kClearance;
  }

  static std::vector<Point> samples(const std::vector<Point>& p) {
    std::vector<Point> points;
    for (int i = 0; i <= kCurveSamples; ++i) {
      const double t = static_cast<double>(i) / kCurveSamples, s = 1 - t;
      const double w[] = {s * s * s, 3 * s * s * t, 3 * s * t * t, t * t * t};
      Point point;
      for (int k = 0; k < 4; ++k) {
        point.x += w[k] * p[k].x;
        point.y += w[k] * p[k].y;
      }
      points.push_back(point);
    }
    return points;
  }

  const Graph& graph_;
  const std::vector<Rectangle>& nodes_;
  std::vector<Rectangle> lanes_;  // taken by detours
};

}  // namespace

std::vector<EdgePath> route_edges(const Graph& graph, const std::vector<Rectangle>& nodes) {
  Router router(graph, nodes);
  std::vector<EdgePath> paths;
  for (const GraphEdge& edge : graph.edges) paths.push_back(router.route(edge));
  return paths;
}

}  // namespace mocograd
