// augment: views of images by their recipes (tensor/view_recipe.h), one after the other
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
// clamp is to [0, 1]. A view is worked on as three planes of floats, which for 32×32 stay in L1;
// the pointwise passes run over whole planes, padded to whole vectors.
#include <cmath>

#include "cpu/cpu_backend.h"
#include "cpu/scratch.h"
#include "cpu/simd.h"

namespace mocograd::MOCO_ISA {
namespace {

using V = Vec<float>;
constexpr int kLane = kLanes<float>;
constexpr float kGrayRed = 0.2989f, kGrayGreen = 0.587f, kGrayBlue = 0.114f;

MOCO_ALWAYS_INLINE V smaller(V a, V b) {
  return a < b ? a : b;
}
MOCO_ALWAYS_INLINE V larger(V a, V b) {
  return a > b ? a : b;
}
MOCO_ALWAYS_INLINE V clamp01(V x) {
  return smaller(larger(x, V{}), broadcast(1.0f));
}

// How one direction is resized: output j is Σ_t weight[j·taps + t] · input[start[j] + t].
struct ResizePlan {
  int32_t* start;
  float* weight;
  int64_t taps;  // the most that any output has; the rest are zeros
};

// Room for the work on views of one size from images of one size.
class Workspace {
 public:
  Workspace(int64_t height, int64_t width, int64_t size) : size_(size) {
    const int64_t longest = height > width ? height : width;
    plane_ = (size * size + kLane - 1) / kLane * kLane;
    taps_ = 2 * ((longest + size - 1) / size) + 3;
    const int64_t padded_row = 3 * size + 2 * kLane;
    const int64_t floats = 6 * plane_ + 3 * height * size + size * taps_ + padded_row + size;
    memory_ = scratch_of<float>(0, floats);
    rows_ = memory_ + 6 * plane_;
    weight_ = rows_ + 3 * height * size;
    padded_ = weight_ + size * taps_;
    start_ = reinterpret_cast<int32_t*>(padded_ + padded_row);
    for (int64_t i = 0; i < 6 * plane_; ++i) memory_[i] = 0;
  }

  int64_t size() const { return size_; }
  int64_t plane_numel() const { return plane_; }
  float* plane(int c) const { return memory_ + c * plane_; }
  float* other_plane(int c) const { return memory_ + (3 + c) * plane_; }
  float* resized_rows() const { return rows_; }  // [3, height of the box, size]
  float* padded_row() const { return padded_; }

  // The plan of resizing `from` pixels to size(); valid until the next call.
  ResizePlan plan(int64_t from) const {
    const double scale = static_cast<double>(from) / static_cast<double>(size_);
    const double support = scale > 1 ? scale : 1;
    const int64_t taps = 2 * static_cast<int64_t>(std::ceil(support)) + 1;
    for (int64_t j = 0; j < size_; ++j) {
      const double center = (static_cast<double>(j) + 0.5) * scale;
      int64_t begin = static_cast<int64_t>(center - support + 0.5);
      int64_t end = static_cast<int64_t>(center + support + 0.5);
      if (begin < 0) begin = 0;
      if (end > from) end = from;
      double sum = 0;
      for (int64_t x = begin; x < end; ++x) sum += triangle(x, center, support);
      float* weight = weight_ + j * taps;
      for (int64_t t = 0; t < taps; ++t)
        weight[t] =
            begin + t < end ? static_cast<float>(triangle(begin + t, center, support) / sum) : 0.0f;
      start_[j] = static_cast<int32_t>(begin);
    }
    return {start_, weight_, taps};
  }

 private:
  MOCO_ALWAYS_INLINE static double triangle(int64_t x, double center, double support) {
    const double distance = std::fabs(static_cast<double>(x) + 0.5 - center) / support;
    return distance < 1 ? 1 - distance : 0;
  }

  int64_t size_, plane_, taps_;
  float *memory_, *rows_, *weight_, *padded_;
  int32_t* start_;
};

// Rows of the box to size() columns, then columns to size() rows. image: u8 [3, H, W].
void crop_and_resize(const Workspace& work, const uint8_t* image, int64_t H, int64_t W,
                     const ViewRecipe& view) {
  const int64_t S = work.size(), h = view.height;
  const ResizePlan across = work.plan(view.width);
  for (int64_t row = 0; row < 3 * h; ++row) {
    const uint8_t* source = image + (row / h * H + view.top + row % h) * W + view.left;
    float* target = work.resized_rows() + row * S;
    for (int64_t j = 0; j < S; ++j) {
      const uint8_t* x = source + across.start[j];
      const float* weight = across.weight + j * across.taps;
      float sum = 0;
      for (int64_t t = 0; t < across.taps && weight[t] != 0; ++t)
        sum += weight[t] * static_cast<float>(x[t]);
      target[j] = sum * (1.0f / 255);
    }
  }
  const ResizePlan down = work.plan(h);
  for (int c = 0; c < 3; ++c) {
    for (int64_t i = 0; i < S; ++i) {
      float* target = work.plane(c) + i * S;
      const float* weight = down.weight + i * down.taps;
      const float* source = work.resized_rows() + (c * h + down.start[i]) * S;
      for (int64_t j = 0; j < S; ++j) target[j] = weight[0] * source[j];
      for (int64_t t = 1; t < down.taps && weight[t] != 0; ++t) {
        source += S;
        for (int64_t j = 0; j < S; ++j) target[j] += weight[t] * source[j];
      }
    }
  }
}

// Calls f(r, g, b) with references to vectors of each pixel's channels.
template <class F>
MOCO_ALWAYS_INLINE void for_each_pixel(const Workspace& work, const F& f) {
  for (int64_t i = 0; i < work.plane_numel(); i += kLane) {
    V r = load(work.plane(0) + i), g = load(work.plane(1) + i), b = load(work.plane(2) + i);
    f(r, g, b);
    store<float>(work.plane(0) + i, r);
    store<float>(work.plane(1) + i, g);
    store<float>(work.plane(2) + i, b);
  }
}

MOCO_ALWAYS_INLINE V gray_of(V r, V g, V b) {
  return kGrayRed * r + kGrayGreen * g + kGrayBlue * b;
}

void grayscale(const Workspace& work) {
  for_each_pixel(work, [](V& r, V& g, V& b) { r = g = b = gray_of(r, g, b); });
}

void brightness(const Workspace& work, float f) {
  for_each_pixel(work, [f](V& r, V& g, V& b) {
    r = clamp01(f * r);
    g = clamp01(f * g);
    b = clamp01(f * b);
  });
}

void contrast(const Workspace& work, float f) {
  double sum = 0;
  for (int64_t i = 0; i < work.size() * work.size(); ++i)
    sum +=
        kGrayRed * work.plane(0)[i] + kGrayGreen * work.plane(1)[i] + kGrayBlue * work.plane(2)[i];
  const double mean = sum / static_cast<double>(work.size() * work.size());
  const float rest = (1 - f) * static_cast<float>(mean);
  for_each_pixel(work, [f, rest](V& r, V& g, V& b) {
    r = clamp01(f * r + rest);
    g = clamp01(f * g + rest);
    b = clamp01(f * b + rest);
  });
}

void saturation(const Workspace& work, float f) {
  for_each_pixel(work, [f](V& r, V& g, V& b) {
    const V rest = (1 - f) * gray_of(r, g, b);
    r = clamp01(f * r + rest);
    g = clamp01(f * g + rest);
    b = clamp01(f * b + rest);
  });
}

// One channel of a colour with value `high`, chroma `range` and hue h6 in sixths of a turn, [-1, 11]:
//   high − range · clamp(min(k, 4 − k)),  k = (n + h6) mod 6,  n = 5, 3, 1 for red, green, blue
MOCO_ALWAYS_INLINE V channel_of(V high, V range, V h6, float n) {
  const V six = broadcast(6.0f);
  V k = h6 + n;
  k = k >= 12.0f ? k - 12.0f : k;
  k = k >= six ? k - six : k;
  return high - range * clamp01(smaller(k, 4.0f - k));
}

void shift_hue(const Workspace& work, float turns) {
  const float shift = 6 * (turns < 0 ? turns + 1 : turns);  // in sixths, [0, 6]
  for_each_pixel(work, [shift](V& r, V& g, V& b) {
    const V high = larger(larger(r, g), b), low = smaller(smaller(r, g), b), range = high - low;
    const V divisor = range == V{} ? broadcast(1.0f) : range;
    const V from_red = (g - b) / divisor, from_green = 2.0f + (b - r) / divisor,
            from_blue = 4.0f + (r - g) / divisor;
    const V before = high == r ? from_red : high == g ? from_green : from_blue;  // sixths, [-1, 5]
    const V hue = before + shift;
    r = channel_of(high, range, hue, 5);
    g = channel_of(high, range, hue, 3);
    b = channel_of(high, range, hue, 1);
  });
}

void jitter(const Workspace& work, const ViewRecipe& view) {
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
MOCO_ALWAYS_INLINE int64_t mirrored(int64_t i, int64_t S) {
  if (i < 0) return -i;
  return i < S ? i : 2 * (S - 1) - i;
}

void gaussian_blur(const Workspace& work, float sigma) {
  constexpr int64_t kMaxRadius = 64;
  const int64_t S = work.size();
  int64_t radius = static_cast<int64_t>(std::ceil(3 * sigma));
  if (radius > S - 1) radius = S - 1;
  if (radius > kMaxRadius) radius = kMaxRadius;
  float weight[2 * kMaxRadius + 1];
  float sum = 0;
  for (int64_t t = 0; t <= 2 * radius; ++t) {
    const float x = static_cast<float>(t - radius) / sigma;
    sum += weight[t] = std::exp(-0.5f * x * x);
  }
  for (int64_t t = 0; t <= 2 * radius; ++t) weight[t] /= sum;

  for (int c = 0; c < 3; ++c) {
    for (int64_t i = 0; i < S; ++i) {  // along the rows, into the other plane
      const float* source = work.plane(c) + i * S;
      float* padded = work.padded_row();
      for (int64_t j = -radius; j < S + radius; ++j) padded[j + radius] = source[mirrored(j, S)];
      float* target = work.other_plane(c) + i * S;
      for (int64_t j = 0; j < S; ++j) target[j] = weight[0] * padded[j];
      for (int64_t t = 1; t <= 2 * radius; ++t) {
        for (int64_t j = 0; j < S; ++j) target[j] += weight[t] * padded[j + t];
      }
    }
    for (int64_t i = 0; i < S; ++i) {  // along the columns, and back
      float* target = work.plane(c) + i * S;
      for (int64_t j = 0; j < S; ++j) target[j] = 0;
      for (int64_t t = 0; t <= 2 * radius; ++t) {
        const float* source = work.other_plane(c) + mirrored(i + t - radius, S) * S;
        for (int64_t j = 0; j < S; ++j) target[j] += weight[t] * source[j];
      }
    }
  }
}

// Planes to NHWC, mirrored where asked.
void write_normalized(const Workspace& work, const ViewRecipe& view, float* y) {
  const int64_t S = work.size();
  float scale[3], shift[3];
  for (int c = 0; c < 3; ++c) {
    scale[c] = 1 / view.std[c];
    shift[c] = -view.mean[c] / view.std[c];
  }
  for (int64_t i = 0; i < S; ++i) {
    for (int64_t j = 0; j < S; ++j, y += 3) {
      const int64_t pixel = i * S + (view.flip ? S - 1 - j : j);
      for (int c = 0; c < 3; ++c) y[c] = work.plane(c)[pixel] * scale[c] + shift[c];
    }
  }
}

}  // namespace

void CpuBackend::augment(const Tensor& images, const ViewRecipe* views, const Tensor& y) {
  const int64_t H = images.dim(2), W = images.dim(3), S = y.dim(1);
  const Workspace work(H, W, S);
  for (int64_t n = 0; n < y.dim(0); ++n) {
    const ViewRecipe& view = views[n];
    crop_and_resize(work, images.raw<uint8_t>() + view.image * 3 * H * W, H, W, view);
    if (view.gray_first) grayscale(work);
    jitter(work, view);
    if (view.gray_last) grayscale(work);
    if (view.blur_sigma > 0) gaussian_blur(work, view.blur_sigma);
    write_normalized(work, view, y.raw<float>() + n * S * S * 3);
  }
}

}  // namespace mocograd::MOCO_ISA
