#include "data/shapes.h"

#include <algorithm>
#include <cmath>

#include "tensor/random.h"

namespace mocograd {
namespace {

constexpr uint64_t kSeed = 20200613;
constexpr int kSamples = 3;  // per pixel and direction, against jagged edges

const char* const kNames[] = {"disc",  "ring",     "triangle", "square", "star",
                              "cross", "crescent", "heart",    "arrow",  "hourglass"};
constexpr int64_t kClasses = std::size(kNames);

double length(double x, double y) {
  return std::sqrt(x * x + y * y);
}

// Five points on the unit circle, joined through points at 0.45. The plane is folded along the
// star's axes until one tenth is left, where the star is what lies below one line.
bool inside_star(double x, double y) {
  constexpr double kSin36 = 0.5877852522924731, kCos36 = 0.8090169943749475;
  x = std::abs(x);
  for (const double axis : {kCos36, -kCos36}) {
    const double beyond = 2 * std::max(0.0, axis * x + kSin36 * y);
    x -= beyond * axis;
    y -= beyond * kSin36;
  }
  x = std::abs(x);
  const double inner_x = 0.45 * kSin36, inner_y = 0.45 * kCos36;
  return x * (1 - inner_y) - y * inner_x < inner_x;
}

// Two discs, and the lines that touch them and meet below.
bool inside_heart(double x, double y) {
  x = std::abs(x);
  return length(x - 0.43, y + 0.33) < 0.46 ||
         (y > -0.33 && x < std::min(0.785, 0.8196 * (0.92 - y)));
}

struct Color {
  double r, g, b;
};

Color operator+(const Color& a, const Color& b) {
  return {a.r + b.r, a.g + b.g, a.b + b.b};
}
Color operator*(double factor, const Color& a) {
  return {factor * a.r, factor * a.g, factor * a.b};
}

double distance(const Color& a, const Color& b) {
  const Color d = a + -1 * b;
  return std::sqrt(d.r * d.r + d.g * d.g + d.b * d.b);
}

// A gray of any brightness, tinted. Strong colours would tell one picture from another so well that
// contrastive learning need not look at anything else.
Color random_color(RandomStream& random) {
  constexpr double kTint = 0.08;
  const double gray = (1 - kTint) * random.uniform();
  const auto channel = [&] { return gray + kTint * random.uniform(); };
  const double r = channel(), g = channel(), b = channel();
  return {r, g, b};
}

struct Direction {
  double cosine, sine;
};

Direction random_direction(RandomStream& random) {
  for (;;) {
    const double x = random.uniform(-1, 1), y = random.uniform(-1, 1), radius = length(x, y);
    if (radius > 0.1 && radius < 1) return {x / radius, y / radius};
  }
}

// A pattern of two similar colours: plain, stripes, checks, a gradient, or dots.
class Texture {
 public:
  Texture(const Color& first, RandomStream& random)
      : first_(first),
        to_second_(kVariation * (random_color(random) + -1 * first)),
        kind_(random.below(5)),
        frequency_(random.uniform(4, 9)),
        along_(random_direction(random)) {}

  // How much of the second colour is at (x, y), both in [-1, 1] over the picture.
  double share(double x, double y) const {
    const double u = along_.cosine * x + along_.sine * y, v = along_.cosine * y - along_.sine * x;
    switch (kind_) {
      case 0:
        return 0;
      case 1:
        return static_cast<double>(stripe(u) & 1);
      case 2:
        return static_cast<double>((stripe(u) + stripe(v)) & 1);
      case 3:
        return std::clamp(0.5 + 0.6 * u, 0.0, 1.0);
      default:
        return length(from_dot(u), from_dot(v)) < 0.45 ? 1 : 0;
    }
  }

  // The sum of `count` samples whose shares sum to `shares`.
  Color sum(double count, double shares) const { return count * first_ + shares * to_second_; }

 private:
  static constexpr double kVariation = 0.05;

  // Which stripe u is in, counted from one beyond the picture, and the distance from the middle of
  // every second one, as part of a stripe.
  int64_t stripe(double u) const { return static_cast<int64_t>(frequency_ * u + 100); }
  double from_dot(double u) const {
    const double position = 0.5 * (frequency_ * u + 100);
    return 2 * (position - static_cast<double>(static_cast<int64_t>(position))) - 1;
  }

  Color first_, to_second_;
  int64_t kind_;
  double frequency_;  // stripes per half the picture
  Direction along_;
};

// Everything random about one picture.
class Scene {
 public:
  Scene(int64_t label, RandomStream& random)
      : label_(label),
        radius_(random.uniform(0.4, 0.75)),
        turn_(random_direction(random)),
        noise_(random.uniform(0, 0.06)),
        background_color_(random_color(random)),
        background_(background_color_, random),
        fill_(contrasting_color(background_color_, random), random) {
    const double room = 1 - 0.8 * radius_;  // the shape may leave the picture a little
    x_ = random.uniform(-room, room);
    y_ = random.uniform(-room, room);
  }

  double noise() const { return noise_; }

  // The mean over the square of side `step` whose upper left corner is at (left, top).
  Color pixel(double left, double top, double step) const {
    constexpr double kCount = kSamples * kSamples;
    double inside = 0, inside_shares = 0, outside_shares = 0;
    for (int sample = 0; sample < kSamples * kSamples; ++sample) {
      const double x = left + step * (sample % kSamples + 0.5) / kSamples;
      const double y = top + step * (sample / kSamples + 0.5) / kSamples;
      if (covers(x, y)) {
        ++inside;
        inside_shares += fill_.share(x, y);
      } else {
        outside_shares += background_.share(x, y);
      }
    }
    return 1 / kCount *
           (fill_.sum(inside, inside_shares) + background_.sum(kCount - inside, outside_shares));
  }

 private:
  // Does the shape lie at that point of the picture?
  bool covers(double x, double y) const {
    const double u = (x - x_) / radius_, v = (y - y_) / radius_;
    return inside_shape(label_, turn_.cosine * u + turn_.sine * v,
                        turn_.cosine * v - turn_.sine * u);
  }

  static Color contrasting_color(const Color& other, RandomStream& random) {
    constexpr double kLeastContrast = 0.6;
    Color color = random_color(random);
    while (distance(color, other) < kLeastContrast) color = random_color(random);
    return color;
  }

  int64_t label_;
  double radius_;
  Direction turn_;
  double noise_;
  Color background_color_;
  Texture background_, fill_;
  double x_ = 0, y_ = 0;
};

void draw(const Scene& scene, int64_t size, RandomStream& random, uint8_t* image) {
  const double step = 2.0 / static_cast<double>(size);
  for (int64_t i = 0; i < size * size; ++i) {
    const Color color = scene.pixel(static_cast<double>(i % size) * step - 1,
                                    static_cast<double>(i / size) * step - 1, step);
    const double channel[] = {color.r, color.g, color.b};
    for (int c = 0; c < 3; ++c) {
      const double value = channel[c] + scene.noise() * (2 * random.uniform() - 1);
      image[c * size * size + i] = static_cast<uint8_t>(255 * std::clamp(value, 0.0, 1.0) + 0.5);
    }
  }
}

ImageSet generate(uint32_t split, int64_t count, int64_t size) {
  ImageSet set{Tensor::empty({count, 3, size, size}, {.dtype = DType::u8}),
               Tensor::empty({count}, {.dtype = DType::i64})};
  for (int64_t i = 0; i < count; ++i) {
    RandomStream random(kSeed, Purpose::shapes_dataset, split, static_cast<uint32_t>(i));
    const Scene scene(i % kClasses, random);
    draw(scene, size, random, set.images.data<uint8_t>() + i * 3 * size * size);
    set.labels.data<int64_t>()[i] = i % kClasses;
  }
  return set;
}

}  // namespace

bool inside_shape(int64_t label, double x, double y) {
  const double radius = length(x, y);
  if (radius >= 1) return false;  // cuts the corners of the hourglass
  switch (label) {
    case 0:  // disc
      return radius < 0.8;
    case 1:  // ring
      return radius < 0.95 && radius > 0.5;
    case 2:  // triangle
      return y < 0.5 && 1.7320508 * std::abs(x) < y + 1;
    case 3:  // square
      return std::max(std::abs(x), std::abs(y)) < 0.7;
    case 4:
      return inside_star(x, y);
    case 5:  // cross
      return std::min(std::abs(x), std::abs(y)) < 0.22 && std::max(std::abs(x), std::abs(y)) < 0.9;
    case 6:  // crescent
      return radius < 0.95 && length(x - 0.45, y) > 0.75;
    case 7:
      return inside_heart(x, y);
    case 8:  // arrow: a shaft and a head
      return (std::abs(x) < 0.2 && y > -0.1 && y < 0.95) ||
             (y > -0.95 && y <= -0.05 && std::abs(x) < 0.75 * (y + 0.95) / 0.9);
    case 9:  // hourglass
      return std::abs(y) < 0.85 && std::abs(x) < 0.08 + 0.75 * std::abs(y);
    default:
      MOCO_CHECK(false, "shapes: there is no class ", label);
  }
}

DataSet generate_shapes(int64_t image_size) {
  MOCO_CHECK(image_size >= 1, "shapes: image size ", image_size);
  DataSet data;
  data.name = "shapes";
  data.train = generate(0, kShapesTrainImages, image_size);
  data.test = generate(1, kShapesTestImages, image_size);
  data.classes.assign(std::begin(kNames), std::end(kNames));
  data.mean = {0.4934f, 0.4932f, 0.4933f};  // of the training images, 32×32
  data.std = {0.2653f, 0.2652f, 0.2649f};
  return data;
}

}  // namespace mocograd
