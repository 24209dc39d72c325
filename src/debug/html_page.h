// Pages for the browser that need nothing but themselves: a template of debug/html, which has become a
// string of the program.
#pragma once

#include <string>
#include <string_view>

namespace mocograd {

// `page` with the JSON and debug/html/elements.js, which reads it, as scripts where @DATA@ stands.
std::string page_with(std::string_view page, std::string_view json);

}  // namespace mocograd
