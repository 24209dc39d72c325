#include "cli/operation_formula.h"

#include <sstream>
#include <vector>

namespace mocograd {
namespace {

struct Header {
  const char* path;
  const char* text;
};

// Made by the Makefile from src/autograd/ops/*.h.
constexpr Header kHeaders[] = {
#include "cli/operation_headers.inc"
};

bool is_comment(const std::string& line) {
  return line.rfind("//", 0) == 0;
}

// "// y = a + b" → "y = a + b"
std::string text_of(const std::vector<std::string>& lines, size_t begin, size_t end) {
  std::string text;
  for (size_t i = begin; i < end; ++i)
    text += lines[i].substr(lines[i].rfind("// ", 0) == 0 ? 3 : 2) + "\n";
  return text;
}

}  // namespace

OperationFormula operation_formula(const std::string& op) {
  for (const Header& header : kHeaders) {
    std::vector<std::string> lines;
    std::istringstream stream(header.text);
    for (std::string line; std::getline(stream, line);) lines.push_back(line);
    size_t declared = 0;
    while (declared < lines.size() && lines[declared].rfind("Variable " + op + "(", 0) != 0)
      ++declared;
    if (declared == lines.size()) continue;

    // The comment above the declaration, and where that has no formula the file's own, too.
    size_t above = declared;
    while (above > 0 && is_comment(lines[above - 1])) --above;
    std::string text = text_of(lines, above, declared);
    if (text.find(" = ") == std::string::npos) {
      size_t head = 0;
      while (is_comment(lines[head])) ++head;
      text = text_of(lines, 0, head) + text;
    }
    return {header.path, text};
  }
  return {};
}

}  // namespace mocograd
