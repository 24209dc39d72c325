#include "debug/html_page.h"

namespace mocograd {
namespace {

constexpr std::string_view kElements =
#include "debug/html/elements.js.inc"
    ;

}  // namespace

std::string page_with(std::string_view page, std::string_view json) {
  constexpr std::string_view kPlace = "@DATA@";
  const size_t place = page.find(kPlace);
  std::string text(page.substr(0, place));
  text += "<script type=\"application/json\" id=\"data\">";
  // Outside of strings JSON has no "<", and inside of them it may be written so: the page's script
  // element cannot end early.
  for (const char c : json) {
    if (c == '<') {
      text += "\\u003c";
    } else {
      text += c;
    }
  }
  text += "</script>\n<script>\n";
  text += kElements;
  text += "</script>";
  text += page.substr(place + kPlace.size());
  return text;
}

}  // namespace mocograd
