#include "cli/decode_progress.h"

#include <unistd.h>

#include <iostream>
#include <utility>

#include "cli/stop_signal.h"
#include "cpu/parallel.h"

namespace mocograd {

DecodeOptions DecodeProgress::options() {
  DecodeOptions options{.threads = num_threads()};
  options.progress = [this](int64_t done, int64_t total) {
    throw_if_stopped();
    show(done, total);
  };
  return options;
}

void DecodeProgress::show(int64_t done, int64_t total) {
  if (done == total) return clear();
  if (!isatty(STDERR_FILENO)) return;
  std::cerr << "\rdecoded " << done << " of " << total << " images\033[K" << std::flush;
  shown_ = true;
}

void DecodeProgress::clear() {
  if (std::exchange(shown_, false)) std::cerr << "\r\033[K" << std::flush;
}

}  // namespace mocograd
