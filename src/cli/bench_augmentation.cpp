#include "cli/bench_parts.h"
#include "data/augmentation.h"
#include "tensor/backend.h"
#include "tensor/random.h"

namespace mocograd {

void bench_augmentation(BenchReport& report, int rounds, int64_t image_size) {
  constexpr int64_t kViews = 64;  // in one round
  const Device device = report.device();
  report.title(device == Device::cpu ? "augmentation: 64 views drawn and made, on one thread"
                                     : "augmentation: 64 views, drawn by the CPU and made here");
  const Tensor on_host = Tensor::empty({kViews, 3, image_size, image_size}, {.dtype = DType::u8});
  RandomStream random(0, Purpose::test);
  for (int64_t i = 0; i < on_host.numel(); ++i)
    on_host.data<uint8_t>()[i] = static_cast<uint8_t>(random.below(256));
  const Tensor images = on_host.to(device);
  const Tensor y = Tensor::empty({kViews, image_size, image_size, 3}, {.device = device});
  std::vector<ViewRecipe> views(kViews);
  for (const char* name : {"demo", "v1", "v2", "none"}) {
    const ViewSettings settings{
        parse_augmentation(name), 0, image_size, image_size, {0.5f, 0.5f, 0.5f},
        {0.2f, 0.2f, 0.2f}};
    int64_t epoch = 0;
    const Timing timing = time_of(device, rounds, [&] {
      for (int64_t i = 0; i < kViews; ++i)
        views[static_cast<size_t>(i)] = sample_view(settings, epoch, i, 0);
      y.backend().augment(images, views.data(), y);
      ++epoch;
    });
    const double us_per_view = 1e6 * timing.median() / kViews;
    char note[64];
    std::snprintf(note, sizeof note, "%.1f us a view", us_per_view);
    report.add({.part = "augmentation",
                .what = std::string(name) + ", " + std::to_string(image_size) + " px",
                .pass = "",
                .flops = 0,
                .bytes = 0,
                .timing = timing,
                .one_thread = device == Device::cpu,
                .note = note,
                .details = {{"us_per_view", us_per_view}}});
  }
}

}  // namespace mocograd
