// How far the decoding of a data set's images is: on a terminal one line of stderr that is rewritten,
// and gone when the work is done or has failed.
#pragma once

#include "data/dataset.h"

namespace mocograd {

class DecodeProgress {
 public:
  ~DecodeProgress() { clear(); }

  // By as many threads as compute. Progress is shown here, which has to live as long; a signal that
  // was deferred ends it by Stopped (cli/stop_signal.h).
  DecodeOptions options();

 private:
  void show(int64_t done, int64_t total);
  void clear();

  bool shown_ = false;
};

}  // namespace mocograd
