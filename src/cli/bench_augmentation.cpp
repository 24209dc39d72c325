#include "cli/bench_augmentation.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

#include "cpu/instruction_set.h"
#include "data/augmentation.h"
#include "tensor/backend.h"
#include "tensor/random.h"

namespace mocograd {
namespace {

constexpr int64_t kImages = 64;  // and views in one measurement
constexpr int kMeasurements = 200;

// Seconds a view, sorted, of kMeasurements batches after one that warms up.
std::vector<double> measure(const Tensor& images, Augmentation augmentation) {
  const int64_t size = images.dim(2);
  const ViewSettings settings{augmentation, 0, size, size, {0.5f, 0.5f, 0.5f}, {0.2f, 0.2f, 0.2f}};
  const Tensor y = Tensor::empty({kImages, size, size, 3});
  std::vector<ViewRecipe> views(kImages);
  std::vector<double> seconds;
  for (int64_t epoch = 0; epoch <= kMeasurements; ++epoch) {
    const auto begin = std::chrono::steady_clock::now();
    for (int64_t i = 0; i < kImages; ++i)
      views[static_cast<size_t>(i)] = sample_view(settings, epoch, i, 0);
    y.backend().augment(images, views.data(), y);
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - begin;
    if (epoch > 0) seconds.push_back(passed.count() / kImages);
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds;
}

}  // namespace

void bench_augmentation(int64_t image_size, bool json) {
  const Tensor images = Tensor::empty({kImages, 3, image_size, image_size}, {.dtype = DType::u8});
  RandomStream random(0, Purpose::test);
  for (int64_t i = 0; i < images.numel(); ++i)
    images.data<uint8_t>()[i] = static_cast<uint8_t>(random.below(256));
  for (const char* name : {"demo", "v1", "v2"}) {
    const std::vector<double> seconds = measure(images, parse_augmentation(name));
    const double median = 1e6 * seconds[kMeasurements / 2], best = 1e6 * seconds[0];
    std::printf(json ? "{\"augment\":\"%s\",\"image_size\":%lld,\"instruction_set\":\"%s\","
                       "\"us_per_view\":%.2f,\"best_us_per_view\":%.2f}\n"
                     : "augment %-4s  %lld px, 1 thread, %s  median %.1f us/view  best %.1f\n",
                name, static_cast<long long>(image_size), name_of(instruction_set()), median, best);
  }
}

}  // namespace mocograd
