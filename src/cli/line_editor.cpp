#include "cli/line_editor.h"

#include <algorithm>
#include <clocale>
#include <cstdio>

namespace mocograd {
namespace {

LineEditor* owner(EditLine* editor) {
  void* data = nullptr;
  el_get(editor, EL_CLIENTDATA, &data);
  return static_cast<LineEditor*>(data);
}

EditLine* open_editor() {
  std::setlocale(LC_CTYPE, "");  // libedit reads characters in the terminal's encoding
  return el_init("moco", stdin, stdout, stderr);
}

}  // namespace

LineEditor::LineEditor(std::vector<std::string> first_words)
    : first_words_(std::move(first_words)), editor_(open_editor()), history_(history_init()) {
  if (!editor_ || !history_) throw Error("console: the line editor cannot use this terminal");
  el_set(editor_, EL_CLIENTDATA, this);
  el_set(editor_, EL_EDITOR, "emacs");
  const auto prompt = [](EditLine* editor) { return owner(editor)->prompt_.data(); };
  el_set(editor_, EL_PROMPT, static_cast<char* (*)(EditLine*)>(prompt));
  HistEvent event;
  history(history_, &event, H_SETSIZE, 1000);
  history(history_, &event, H_SETUNIQUE, 1);
  el_set(editor_, EL_HIST, history, history_);
  // el_wset keeps these names as they are; el_set would copy them and never free the copies.
  el_wset(editor_, EL_ADDFN, L"complete", L"complete a command", &LineEditor::complete);
  el_wset(editor_, EL_ADDFN, L"interrupt", L"drop the line", &LineEditor::interrupt);
  el_set(editor_, EL_BIND, "^I", "complete", nullptr);
  // While a line is edited Ctrl-C is a key like any other, not a signal.
  el_set(editor_, EL_BIND, "^C", "interrupt", nullptr);
  el_set(editor_, EL_SETTY, "-d", "-isig", nullptr);
}

LineEditor::~LineEditor() {
  history_end(history_);
  el_end(editor_);
}

std::optional<std::string> LineEditor::read(const std::string& prompt) {
  prompt_ = prompt;
  for (;;) {
    interrupted_ = false;
    int length = 0;
    el_set(editor_, EL_PREP_TERM, 1);  // before the prompt, which invites Ctrl-C
    const char* text = el_gets(editor_, &length);
    if (interrupted_) continue;
    if (!text || length <= 0) {
      std::puts("");
      return std::nullopt;
    }
    std::string line(text, static_cast<size_t>(length));
    if (line.ends_with('\n')) line.pop_back();
    HistEvent event;
    if (!line.empty()) history(history_, &event, H_ENTER, line.c_str());
    return line;
  }
}

unsigned char LineEditor::complete(EditLine* editor, int) {
  const LineInfo* line = el_line(editor);
  const std::string typed(line->buffer, line->cursor);
  std::string common;  // the beginning of all words that begin so
  int matches = 0;
  for (const std::string& word : owner(editor)->first_words_) {
    if (!word.starts_with(typed)) continue;
    if (++matches == 1) common = word;
    common.erase(std::ranges::mismatch(common, word).in1, common.end());
  }
  if (matches == 1) common += ' ';
  if (common.size() <= typed.size()) return CC_REFRESH_BEEP;
  return el_insertstr(editor, common.c_str() + typed.size()) == 0 ? CC_REFRESH : CC_ERROR;
}

unsigned char LineEditor::interrupt(EditLine* editor, int) {
  owner(editor)->interrupted_ = true;
  std::fputs("^C\n", stdout);
  return CC_EOF;
}

}  // namespace mocograd
