// Pages for the browser that need nothing but themselves: a template of debug/html, which has become a
// string of the program, and the JSON that its script reads.
#pragma once

#include <string>
#include <string_view>

namespace mocograd {

// `page` with `json` where @DATA@ stands.
inline std::string page_with(std::string_view page, std::string_view json) {
  constexpr std::string_view kPlace = "@DATA@";
  const size_t place = page.find(kPlace);
  std::string text(page.substr(0, place));
  // Outside of strings JSON has no "<", and inside of them it may be written so: the page's script
  // element cannot end early.
  for (const char c : json) {
    if (c == '<') {
      text += "\\u003c";
    } else {
      text += c;
    }
  }
  text += page.substr(place + kPlace.size());
  return text;
}

}  // namespace mocograd
