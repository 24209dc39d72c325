// The convolutions of the networks one by one. On the CPU those of 3×3 are timed directly
// and by the rule (Winograd where it pays), interleaved so that both see the same machine; their errors
// are those against the direct convolution in f64.
#include <cstring>

#include "cli/bench_parts.h"
#include "cpu/conv_algorithm.h"
#include "tensor/backend.h"

namespace mocograd {
namespace {

struct Layer {
  const char* arch;
  int count;  // of such layers in the network
  int64_t N, size, C, OC, kernel;
  Conv2dConfig config;

  std::string what() const {
    char text[64];
    std::snprintf(text, sizeof text, "%s %2lldx%-2lld %3lld->%-3lld %lldx%lld%s", arch,
                  static_cast<long long>(size), static_cast<long long>(size),
                  static_cast<long long>(C), static_cast<long long>(OC),
                  static_cast<long long>(kernel), static_cast<long long>(kernel),
                  config.stride == 2 ? " /2" : "");
    return text;
  }
};

// The layers of a network of basic blocks (nn/resnet.h) that differ.
std::vector<Layer> layers_of(const char* arch, int64_t N, int64_t width, int stages, int blocks) {
  std::vector<Layer> layers = {{arch, 1, N, 32, 3, width, 3, {1, 1}},
                               {arch, 2 * blocks, N, 32, width, width, 3, {1, 1}}};
  for (int stage = 1; stage < stages; ++stage) {
    const int64_t size = 32 >> stage, C = width << stage;
    layers.push_back({arch, 1, N, 2 * size, C / 2, C, 3, {2, 1}});
    layers.push_back({arch, 1, N, 2 * size, C / 2, C, 1, {2, 0}});
    layers.push_back({arch, 2 * blocks - 1, N, size, C, C, 3, {1, 1}});
  }
  return layers;
}

// One pass: the kernel, and what it reads and writes.
struct Pass {
  const char* name;
  void (*run)(const Tensor& a, const Tensor& b, Conv2dConfig config, const Tensor& result);
  Tensor a, b, result;
};

void forward(const Tensor& x, const Tensor& w, Conv2dConfig config, const Tensor& y) {
  y.backend().conv2d_forward(x, w, config, y);
}
void data(const Tensor& dy, const Tensor& w, Conv2dConfig config, const Tensor& dx) {
  dx.backend().conv2d_backward_data(dy, w, config, dx);
}
void weight(const Tensor& x, const Tensor& dy, Conv2dConfig config, const Tensor& dw) {
  dw.backend().conv2d_backward_weight(x, dy, config, dw);
}

Tensor result_of(ConvAlgorithm algorithm, const Pass& pass, Conv2dConfig config) {
  set_conv_algorithm(algorithm);
  const Tensor result = Tensor::empty_like(pass.result);
  pass.run(pass.a, pass.b, config, result);
  return result;
}

// Adds to the note and the details what the direct convolution takes, and both errors.
void compare_with_direct(const Layer& layer, const Pass& pass, int rounds, Measurement& m) {
  const Tensor exact = Tensor::empty(pass.result.shape(), {DType::f64});
  pass.run(pass.a.to(DType::f64), pass.b.to(DType::f64), layer.config, exact);
  const ConvAlgorithm before = conv_algorithm();
  const Tensor by_rule = result_of(before, pass, layer.config);
  const Tensor direct = result_of(ConvAlgorithm::direct, pass, layer.config);
  const bool winograd = std::memcmp(by_rule.raw_bytes(), direct.raw_bytes(), direct.bytes()) != 0;
  const auto run_with = [&](ConvAlgorithm algorithm) {
    return [&, algorithm] {
      set_conv_algorithm(algorithm);
      pass.run(pass.a, pass.b, layer.config, pass.result);
    };
  };
  const std::vector<Timing> timings =
      time_interleaved(Device::cpu, rounds, {run_with(before), run_with(ConvAlgorithm::direct)});
  set_conv_algorithm(before);
  m.timing = timings[0];
  const double direct_ms = 1e3 * timings[1].median(),
               error = largest_error(by_rule.to(DType::f32), exact);
  const double direct_error = largest_error(direct.to(DType::f32), exact);
  m.details.insert(m.details.end(), {{"winograd", winograd},
                                     {"direct_median_ms", direct_ms},
                                     {"direct_best_ms", 1e3 * timings[1].best()},
                                     {"error", error},
                                     {"direct_error", direct_error}});
  char text[128];
  std::snprintf(text, sizeof text, "%s error %.1e; direct %.3f ms, error %.1e, x%.2f",
                winograd ? "Winograd," : "direct,", error, direct_ms, direct_error,
                direct_ms / (1e3 * m.timing.median()));
  m.note = text;
}

void measure(BenchReport& report, int rounds, const Layer& layer) {
  const int64_t OH =
      (layer.size + 2 * layer.config.padding - layer.kernel) / layer.config.stride + 1;
  const Device device = report.device();
  const Tensor x = random_activations({layer.N, layer.size, layer.size, layer.C}, 0, device);
  const Tensor w = random_normal_tensor({layer.kernel, layer.kernel, layer.C, layer.OC}, 1, device);
  const Tensor dy = random_activations({layer.N, OH, OH, layer.OC}, 2, device);
  const Tensor y = Tensor::empty_like(dy), dx = Tensor::empty_like(x), dw = Tensor::empty_like(w);
  for (const Pass& pass : {Pass{"forward", forward, x, w, y}, Pass{"data", data, dy, w, dx},
                           Pass{"weight", weight, x, dy, dw}}) {
    if (layer.C == 3 && pass.run == data) continue;  // nobody asks for the images' gradient
    Measurement m;
    m.part = "layers";
    m.what = layer.what();
    m.pass = pass.name;
    m.activations = true;
    m.flops = 2.0 * static_cast<double>(y.numel() * w.numel() / layer.OC);
    m.bytes = static_cast<double>(pass.a.bytes() + pass.b.bytes() + pass.result.bytes());
    m.details = {{"N", layer.N},         {"size", layer.size},     {"C", layer.C},
                 {"OC", layer.OC},       {"kernel", layer.kernel}, {"stride", layer.config.stride},
                 {"layers", layer.count}};
    if (device == Device::cpu && layer.kernel == 3 && layer.C > 3) {
      compare_with_direct(layer, pass, rounds, m);
    } else {
      m.timing =
          time_of(device, rounds, [&] { pass.run(pass.a, pass.b, layer.config, pass.result); });
    }
    report.add(m);
  }
}

}  // namespace

void bench_layers(BenchReport& report, int rounds) {
  for (const std::vector<Layer>& layers :
       {layers_of("resnet18", size_on(report.device(), 64, 512, 1), 64, 4, 2),
        layers_of("resnet20", size_on(report.device(), 128, 512, 1), 16, 3, 3)}) {
    report.title(std::string("convolutions of ") + layers[0].arch + ", batch " +
                 std::to_string(layers[0].N) +
                 ": median (best) time, rates in the direct convolution's operations");
    for (const Layer& layer : layers) measure(report, rounds, layer);
  }
}

}  // namespace mocograd
