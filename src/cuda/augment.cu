// augment: views of images by their recipes (tensor/view_recipe.h), one block of threads for each
//
//   crop and resize   triangle filter, widened where the box shrinks (bilinear with antialias of
//                     PIL and torchvision): output j is centred at (j + ½)·w/S in the box; input
//                     x weighs max(0, 1 − |x + ½ − centre| / max(1, w/S)), made to sum to 1
//   brightness f      clamp(f·rgb)                     gray = 0.2989 r + 0.587 g + 0.114 b
//   contrast f        clamp(f·rgb + (1 − f)·mean of gray over the picture)
//   saturation f      clamp(f·rgb + (1 − f)·gray)
//   hue d             h ← h + d in HSV, h in turns
//   blur σ            Gaussian at the integers up to ⌈3σ⌉ away (cut to the picture, and to 64),
//                     summing to 1; mirrored at the edges
//
// clamp is to [0, 1]. The view stands in the block's own part of global memory, as planes of floats,
// which for images as small as CIFAR's stay in the L2 cache; a thread works on every 256th pixel, and
// all wait for each other between two steps of which the second reads what others wrote.
#include <algorithm>
#include <cmath>

#include "cuda/blocks.h"
#include "cuda/reduce.h"

namespace mocograd::MOCO_CUDA {
namespace {

constexpr int kMaxBlurRadius = 64;

// Calls f(i) for this thread's share of [0, n).
template <class F>
__device__ void for_each_of_block(int64_t n, const F& f) {
  for (int64_t i = threadIdx.x; i < n; i += kThreads) f(i);
}

__device__ inline float clamp01(float x) {
  return x < 0 ? 0 : x > 1 ? 1 : x;
}
__device__ inline float gray_of(float r, float g, float b) {
  return 0.2989f * r + 0.587f * g + 0.114f * b;
}

// How one direction is resized: output j is Σ_t weight[j·taps + t] · input[start[j] + t].
struct ResizePlan {
  int* start;
  float* weight;
  int64_t taps;  // the most that any output has; the rest are zeros
};

// Where a block works on a view of size S from an image of size [H, W].
struct Workspace {
  int64_t H, W, S;
  int64_t most_taps;
  float* memory;

  Workspace(int64_t height, int64_t width, int64_t size)
      : H(height), W(width), S(size), memory(nullptr) {
    most_taps = 2 * ceil_div(std::max(H, W), S) + 3;
  }

  __host__ __device__ int64_t floats() const { return 6 * S * S + 3 * H * S + S * most_taps + S; }
  __device__ float* plane(int64_t c) const { return memory + c * S * S; }
  __device__ float* other_plane(int64_t c) const { return memory + (3 + c) * S * S; }
  __device__ float* resized_rows() const { return memory + 6 * S * S; }  // [3, height of box, S]
  __device__ ResizePlan plan(int64_t taps) const {
    float* const weight = resized_rows() + 3 * H * S;
    return {reinterpret_cast<int*>(weight + S * most_taps), weight, taps};
  }
};

__device__ inline double triangle(int64_t x, double center, double support) {
  const double distance = std::fabs(static_cast<double>(x) + 0.5 - center) / support;
  return distance < 1 ? 1 - distance : 0;
}

// The plan of resizing `from` pixels to S; in place of the one before.
__device__ inline ResizePlan make_plan(const Workspace& work, int64_t from) {
  const double scale = static_cast<double>(from) / static_cast<double>(work.S);
  const double support = scale > 1 ? scale : 1;
  const ResizePlan plan = work.plan(2 * static_cast<int64_t>(std::ceil(support)) + 1);
  __syncthreads();  // the one before has been used
  for_each_of_block(work.S, [&](int64_t j) {
    const double center = (static_cast<double>(j) + 0.5) * scale;
    int64_t begin = static_cast<int64_t>(center - support + 0.5);
    int64_t end = static_cast<int64_t>(center + support + 0.5);
    if (begin < 0) begin = 0;
    if (end > from) end = from;
    double sum = 0;
    for (int64_t x = begin; x < end; ++x) sum += triangle(x, center, support);
    for (int64_t t = 0; t < plan.taps; ++t)
      plan.weight[j * plan.taps + t] =
          begin + t < end ? static_cast<float>(triangle(begin + t, center, support) / sum) : 0.0f;
    plan.start[j] = static_cast<int>(begin);
  });
  __syncthreads();
  return plan;
}

// Rows of the box to S columns, then columns to S rows. image: [3, H, W].
__device__ inline void crop_and_resize(const Workspace& work, const uint8_t* image,
                                       const ViewRecipe& view) {
  const int64_t S = work.S, h = view.height;
  const ResizePlan across = make_plan(work, view.width);
  for_each_of_block(3 * h * S, [&](int64_t i) {
    const int64_t row = i / S, j = i % S;
    const uint8_t* const x =
        image + (row / h * work.H + view.top + row % h) * work.W + view.left + across.start[j];
    const float* const weight = across.weight + j * across.taps;
    float sum = 0;
    for (int64_t t = 0; t < across.taps && weight[t] != 0; ++t)
      sum += weight[t] * static_cast<float>(x[t]);
    work.resized_rows()[i] = sum * (1.0f / 255);
  });
  const ResizePlan down = make_plan(work, h);
  for_each_of_block(3 * S * S, [&](int64_t i) {
    const int64_t c = i / S / S, row = i / S % S, j = i % S;
    const float* const x = work.resized_rows() + (c * h + down.start[row]) * S + j;
    const float* const weight = down.weight + row * down.taps;
    float sum = 0;
    for (int64_t t = 0; t < down.taps && weight[t] != 0; ++t) sum += weight[t] * x[t * S];
    work.plane(0)[i] = sum;
  });
  __syncthreads();
}

// Calls f(r, g, b) with references to each pixel's channels. Threads need not wait from one call to
// the next: each comes back to the same pixels.
template <class F>
__device__ void for_each_pixel(const Workspace& work, const F& f) {
  for_each_of_block(work.S * work.S,
                    [&](int64_t i) { f(work.plane(0)[i], work.plane(1)[i], work.plane(2)[i]); });
}

__device__ inline void grayscale(const Workspace& work) {
  for_each_pixel(work, [](float& r, float& g, float& b) { r = g = b = gray_of(r, g, b); });
}

__device__ inline void brightness(const Workspace& work, float f) {
  for_each_pixel(work, [f](float& r, float& g, float& b) {
    r = clamp01(f * r);
    g = clamp01(f * g);
    b = clamp01(f * b);
  });
}

__device__ inline void contrast(const Workspace& work, float f) {
  double sum = 0;
  for_each_pixel(work, [&](float& r, float& g, float& b) { sum += gray_of(r, g, b); });
  const double mean = block_sum(sum) / static_cast<double>(work.S * work.S);
  const float rest = (1 - f) * static_cast<float>(mean);
  for_each_pixel(work, [f, rest](float& r, float& g, float& b) {
    r = clamp01(f * r + rest);
    g = clamp01(f * g + rest);
    b = clamp01(f * b + rest);
  });
}

__device__ inline void saturation(const Workspace& work, float f) {
  for_each_pixel(work, [f](float& r, float& g, float& b) {
    const float rest = (1 - f) * gray_of(r, g, b);
    r = clamp01(f * r + rest);
    g = clamp01(f * g + rest);
    b = clamp01(f * b + rest);
  });
}

// One channel of a colour with value `high`, chroma `range` and hue h6 in sixths of a turn, [-1, 11]:
//   high − range · clamp(min(k, 4 − k)),  k = (n + h6) mod 6,  n = 5, 3, 1 for red, green, blue
__device__ inline float channel_of(float high, float range, float h6, float n) {
  float k = h6 + n;
  k = k >= 12 ? k - 12 : k;
  k = k >= 6 ? k - 6 : k;
  return high - range * clamp01(k < 4 - k ? k : 4 - k);
}

__device__ inline void shift_hue(const Workspace& work, float turns) {
  const float shift = 6 * (turns < 0 ? turns + 1 : turns);  // in sixths, [0, 6]
  for_each_pixel(work, [shift](float& r, float& g, float& b) {
    const float high = std::fmax(std::fmax(r, g), b), low = std::fmin(std::fmin(r, g), b);
    const float range = high - low, divisor = range == 0 ? 1 : range;
    const float before = high == r   ? (g - b) / divisor  // sixths, [-1, 5]
                         : high == g ? 2 + (b - r) / divisor
                                     : 4 + (r - g) / divisor;
    const float hue = before + shift;
    r = channel_of(high, range, hue, 5);
    g = channel_of(high, range, hue, 3);
    b = channel_of(high, range, hue, 1);
  });
}

__device__ inline void jitter(const Workspace& work, const ViewRecipe& view) {
  for (const ViewRecipe::JitterPart part : view.jitter_order) {
    switch (part) {
      case ViewRecipe::brightness:
        brightness(work, view.brightness_factor);
        break;
      case ViewRecipe::contrast:
        contrast(work, view.contrast_factor);
        break;
      case ViewRecipe::saturation:
        saturation(work, view.saturation_factor);
        break;
      case ViewRecipe::hue:
        shift_hue(work, view.hue_shift);
        break;
      case ViewRecipe::none:
        break;
    }
  }
}

// The pixel that the picture mirrored at its edges has at i, -S < i < 2·S − 1.
__device__ inline int64_t mirrored(int64_t i, int64_t S) {
  if (i < 0) return -i;
  return i < S ? i : 2 * (S - 1) - i;
}

__device__ inline void gaussian_blur(const Workspace& work, float sigma) {
  __shared__ float weight[2 * kMaxBlurRadius + 1];
  const int64_t S = work.S;
  int64_t radius = static_cast<int64_t>(std::ceil(3 * sigma));
  if (radius > S - 1) radius = S - 1;
  if (radius > kMaxBlurRadius) radius = kMaxBlurRadius;
  if (threadIdx.x == 0) {
    float sum = 0;
    for (int64_t t = 0; t <= 2 * radius; ++t) {
      const float x = static_cast<float>(t - radius) / sigma;
      sum += weight[t] = std::exp(-0.5f * x * x);
    }
    for (int64_t t = 0; t <= 2 * radius; ++t) weight[t] /= sum;
  }
  __syncthreads();
  // Output pixel i of a line of S pixels, `step` apart.
  const auto blurred = [&](const float* line, int64_t step, int64_t i) {
    float sum = 0;
    for (int64_t t = 0; t <= 2 * radius; ++t)
      sum += weight[t] * line[mirrored(i + t - radius, S) * step];
    return sum;
  };
  for_each_of_block(3 * S * S, [&](int64_t i) {
    work.other_plane(0)[i] = blurred(work.plane(0) + i / S * S, 1, i % S);
  });
  __syncthreads();
  for_each_of_block(3 * S * S, [&](int64_t i) {
    work.plane(0)[i] = blurred(work.other_plane(0) + i / S / S * S * S + i % S, S, i / S % S);
  });
}

// Planes to NHWC, mirrored where asked. The next view waits in its make_plan.
__device__ inline void write_normalized(const Workspace& work, const ViewRecipe& view, float* y) {
  const int64_t S = work.S;
  __syncthreads();
  for_each_of_block(S * S, [&](int64_t i) {
    const int64_t pixel = view.flip ? i / S * S + S - 1 - i % S : i;
    for (int c = 0; c < 3; ++c)
      y[i * 3 + c] = work.plane(c)[pixel] * (1 / view.std[c]) - view.mean[c] / view.std[c];
  });
}

__global__ void augment_kernel(Workspace work, const uint8_t* images, const ViewRecipe* views,
                               int64_t count, float* y) {
  work.memory += blockIdx.x * work.floats();
  for (int64_t n = blockIdx.x; n < count; n += gridDim.x) {
    const ViewRecipe& view = views[n];
    crop_and_resize(work, images + view.image * 3 * work.H * work.W, view);
    if (view.gray_first) grayscale(work);
    jitter(work, view);
    if (view.gray_last) grayscale(work);
    if (view.blur_sigma > 0) gaussian_blur(work, view.blur_sigma);
    write_normalized(work, view, y + n * work.S * work.S * 3);
  }
}

}  // namespace

void CudaBackend::augment(const Tensor& images, const ViewRecipe* views, const Tensor& y) {
  constexpr int64_t kMostFloats = int64_t{1} << 26;  // of all blocks
  const int64_t n = y.dim(0);
  if (n == 0) return;
  Workspace work(images.dim(2), images.dim(3), y.dim(1));
  const int64_t blocks = std::clamp<int64_t>(kMostFloats / work.floats(), 1, n);
  const Scratch<float> memory(blocks * work.floats());
  const Scratch<ViewRecipe> recipes(n);
  device_copy(recipes.data(), views, static_cast<size_t>(n) * sizeof(ViewRecipe));
  work.memory = memory.data();
  launch(augment_kernel, blocks_of(kThreads, blocks), work, images.raw<uint8_t>(), recipes.data(),
         n, y.raw<float>());
}

}  // namespace mocograd::MOCO_CUDA
