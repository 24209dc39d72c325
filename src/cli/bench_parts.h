// The parts of moco bench, one file each. A part measures one family of kernels and adds each
// measurement to the report. rounds: how often at least each is timed.
#pragma once

#include "cli/bench_report.h"
#include "moco/pretrain_config.h"

namespace mocograd {

// Matrix products: square ones, and those of the networks' heads and of InfoNCE.
void bench_gemm(BenchReport& report, int rounds);
// Every convolution of ResNet-18 (batch 64) and ResNet-20 (batch 128), all passes; where Winograd
// is taken also the direct one, and the errors of both.
void bench_layers(BenchReport& report, int rounds);
// What is limited by memory: batch norm with what is fused into it, the passes by themselves, and pooling.
void bench_pointwise(BenchReport& report, int rounds);
// The small kernels over matrices, of the head, the loss, the keys' shuffle and kNN.
void bench_rows(BenchReport& report, int rounds);
// Views, drawn and made: by the CPU on the calling thread alone.
void bench_augmentation(BenchReport& report, int rounds, int64_t image_size);
// InfoNCE: logits and loss, forward and backward.
void bench_loss(BenchReport& report, int rounds);
// The passes over all parameters: SGD, the moving average of the key encoder, and what goes with them.
void bench_optimizer(BenchReport& report, int rounds);
// Matrix product and convolution from the plain loops to the engine (docs/KERNELS.md).
void bench_ladder(BenchReport& report, int rounds);
// Whole training steps on random images.
void bench_step(BenchReport& report, int rounds, const PretrainConfig& config);

}  // namespace mocograd
