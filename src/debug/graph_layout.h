// Where the nodes, boxes and edges of a graph are drawn: top to bottom, in units of about a pixel.
//
// Each module is laid out by itself and is then one item of the module around it. An item stands
// below everything that it reads (the longest path), in the lane of what it reads first if there is
// room, so that a network is a column, and what runs beside it (a downsampling shortcut, the key
// encoder) a column beside that. Parameters stand to the left of the operation that reads them.
#pragma once

#include "debug/graph.h"

namespace mocograd {

struct Point {
  double x = 0, y = 0;
};

struct Rectangle {
  double x = 0, y = 0, width = 0, height = 0;

  double right() const { return x + width; }
  double bottom() const { return y + height; }
};

struct EdgePath {
  bool curved = false;        // a cubic Bézier curve of four points, else straight lines
  std::vector<Point> points;  // from the node that is read to the one that reads
};

struct GraphLayout {
  std::vector<Rectangle> nodes, modules;  // as in Graph and GraphModules; the root is everything
  std::vector<EdgePath> edges;
};

GraphLayout lay_out(const Graph& graph, const GraphModules& modules);

// A path for each edge that keeps off the other nodes: straight or one curve if that is clear, else
// a detour through the free lane to the right of the column.
std::vector<EdgePath> route_edges(const Graph& graph, const std::vector<Rectangle>& nodes);

}  // namespace mocograd
