// LineEditor: commands typed at a terminal, with the arrow keys, a history and completion (libedit).
//
// Ctrl-C drops the line and asks again; Ctrl-D on an empty line is the end. Between two reads the
// terminal is as it was found, so there Ctrl-C ends the program as ever.
#pragma once

#include <histedit.h>

#include "debug/console.h"

namespace mocograd {

class LineEditor : public ConsoleInput {
 public:
  // Tab completes the first word of a line to one of these, or as far as all that begin so agree.
  explicit LineEditor(std::vector<std::string> first_words);
  ~LineEditor() override;
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;

  std::optional<std::string> read(const std::string& prompt) override;

 private:
  // Called by libedit for a key.
  static unsigned char complete(EditLine* editor, int key);
  static unsigned char interrupt(EditLine* editor, int key);

  std::vector<std::string> first_words_;
  std::string prompt_;
  bool interrupted_ = false;
  EditLine* editor_;
  History* history_;
};

}  // namespace mocograd
