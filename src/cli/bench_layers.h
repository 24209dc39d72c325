#pragma once

namespace mocograd {

// Times every layer `repetitions` times with each algorithm and prints a line for each pass.
// peak: FLOP/s of the machine.
void bench_layers(int repetitions, double peak, bool json);

}  // namespace mocograd
