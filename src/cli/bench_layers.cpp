// moco bench --layers: the 3×3 convolutions of the networks one by one, all three passes, directly
// and by the rule (Winograd where it pays), interleaved so that both see the same machine.
#include "cli/bench_layers.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <vector>

#include "cpu/conv_algorithm.h"
#include "tensor/backend.h"
#include "tensor/random.h"

namespace mocograd {
namespace {

struct Layer {
  const char* arch;
  int64_t N, size, C;  // x and y: [N, size, size, C]
};

constexpr Layer kLayers[] = {{"resnet18", 64, 32, 64},  {"resnet18", 64, 16, 128},
                             {"resnet18", 64, 8, 256},  {"resnet18", 64, 4, 512},
                             {"resnet20", 128, 32, 16}, {"resnet20", 128, 16, 32},
                             {"resnet20", 128, 8, 64}};

Tensor random_tensor(const Shape& shape, uint32_t name) {
  RandomStream random(0, Purpose::test, 0, name);
  Tensor tensor = Tensor::empty(shape);
  for (int64_t i = 0; i < tensor.numel(); ++i)
    tensor.data<float>()[i] = static_cast<float>(random.normal());
  return tensor;
}

double seconds_of(ConvAlgorithm algorithm, const std::function<void()>& pass) {
  set_conv_algorithm(algorithm);
  const auto begin = std::chrono::steady_clock::now();
  pass();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void measure(const Layer& layer, const char* name, const std::function<void()>& pass,
             int repetitions, double peak, bool json) {
  constexpr ConvAlgorithm kAlgorithms[] = {ConvAlgorithm::direct, ConvAlgorithm::automatic};
  std::vector<double> seconds[2];
  for (int i = -1; i < repetitions; ++i) {  // the first warms up
    for (int a = 0; a < 2; ++a) {
      const double s = seconds_of(kAlgorithms[a], pass);
      if (i >= 0) seconds[a].push_back(s);
    }
  }
  double median[2], best[2], rate[2];
  const double flops = 2.0 * 9 * static_cast<double>(layer.N * layer.size * layer.size) *
                       static_cast<double>(layer.C * layer.C);
  for (int a = 0; a < 2; ++a) {
    std::sort(seconds[a].begin(), seconds[a].end());
    median[a] = seconds[a][seconds[a].size() / 2];
    best[a] = seconds[a].front();
    rate[a] = flops / best[a];
  }
  if (json) {
    std::printf(
        "{\"arch\":\"%s\",\"batch\":%lld,\"size\":%lld,\"channels\":%lld,\"pass\":\"%s\","
        "\"direct_ms\":%.4f,\"direct_best_ms\":%.4f,\"auto_ms\":%.4f,\"auto_best_ms\":%.4f}\n",
        layer.arch, static_cast<long long>(layer.N), static_cast<long long>(layer.size),
        static_cast<long long>(layer.C), name, 1e3 * median[0], 1e3 * best[0], 1e3 * median[1],
        1e3 * best[1]);
    return;
  }
  std::printf(
      "%-8s %2lldx%-2lld C %-3lld %-8s direct %8.2f (%.2f) ms %5.1f%%   auto %8.2f (%.2f) ms "
      "%7.1f GFLOP/s %5.1f%%   x%.2f\n",
      layer.arch, static_cast<long long>(layer.size), static_cast<long long>(layer.size),
      static_cast<long long>(layer.C), name, 1e3 * median[0], 1e3 * best[0], 100 * rate[0] / peak,
      1e3 * median[1], 1e3 * best[1], rate[1] / 1e9, 100 * rate[1] / peak, best[0] / best[1]);
}

}  // namespace

void bench_layers(int repetitions, double peak, bool json) {
  if (!json)
    std::printf(
        "3x3 layers: median (best) time, rates of the best in the direct convolution's "
        "operations\n");
  const ConvAlgorithm before = conv_algorithm();
  const Conv2dConfig config{.stride = 1, .padding = 1};
  for (const Layer& layer : kLayers) {
    const Tensor x = random_tensor({layer.N, layer.size, layer.size, layer.C}, 0);
    const Tensor dy = random_tensor(x.shape(), 1), w = random_tensor({3, 3, layer.C, layer.C}, 2);
    const Tensor y = Tensor::empty_like(x), dx = Tensor::empty_like(x), dw = Tensor::empty_like(w);
    Backend& kernels = x.backend();
    const auto time = [&](const char* name, const std::function<void()>& pass) {
      measure(layer, name, pass, repetitions, peak, json);
    };
    time("forward", [&] { kernels.conv2d_forward(x, w, config, y); });
    time("data", [&] { kernels.conv2d_backward_data(dy, w, config, dx); });
    time("weight", [&] { kernels.conv2d_backward_weight(x, dy, config, dw); });
  }
  set_conv_algorithm(before);
}

}  // namespace mocograd
