// A graph as a picture: for Graphviz, and as a page for the browser that needs nothing but itself.
#pragma once

#include <string>

#include "debug/graph.h"

namespace mocograd {

// Graphviz's DOT, the modules as clusters; what `dot -Tsvg` draws.
std::string dot_of(const Graph& graph);

// A page (debug/html/graph.html) with the graph as JSON, laid out (debug/graph_layout.h).
std::string html_of(const Graph& graph, const std::string& title);

}  // namespace mocograd
