#include "data/shapes.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "tensor/random.h"

namespace mocograd {
namespace {

constexpr uint64_t kSeed = 20200613;
constexpr int kSamples = 3;  // per pixel and direction, against jagged edges
constexpr double kPi = std::numbers::pi;

const char* const kNames[] = {"disc",  "ring",     "triangle", "square", "star",
                              "cross", "crescent", "heart",    "arrow",  "hourglass"};
constexpr int64_t kClasses = std::size(kNames);

double squared(double x) {
  return x * x;
}

bool inside_star(double x, double y) {
  // Five points on the unit circle, joined through points at 0.45: the edge of one tenth, mirrored.
  const double angle = std::atan2(x, -y), tenth = kPi / 5;
  const double folded = std::abs(std::remainder(angle, 2 * tenth));
  const double radius = std::hypot(x, y), px = radius * std::sin(folded),
               py = radius * std::cos(folded);
  const double inner_x = 0.45 * std::sin(tenth), inner_y = 0.45 * std::cos(tenth);
  return px * (1 - inner_y) + py * inner_x < inner_x;
}

bool inside_heart(double x, double y) {
  const double u = 1.25 * x, v = 0.1 - 1.2 * y;
  return std::pow(u * u + v * v - 1, 3) - u * u * v * v * v < 0;
}

struct Color {
  double r, g, b;

  double distance(const Color& o) const {
    return std::sqrt(squared(r - o.r) + squared(g - o.g) + squared(b - o.b));
  }
  Color mixed(const Color& o, double share) const {
    return {r + share * (o.r - r), g + share * (o.g - g), b + share * (o.b - b)};
  }
};

Color random_color(RandomStream& random) {
  return {random.uniform(), random.uniform(), random.uniform()};
}

// A pattern of two colours: plain, stripes, checks, a gradient, or dots.
class Texture {
 public:
  Texture(const Color& first, const Color& second, RandomStream& random)
      : first_(first),
        second_(second),
        kind_(random.below(5)),
        cosine_(0),
        sine_(0),
        frequency_(random.uniform(4, 9)) {
    const double angle = random.uniform(0, 2 * kPi);
    cosine_ = std::cos(angle);
    sine_ = std::sin(angle);
  }

  // x, y in [-1, 1] over the picture.
  Color at(double x, double y) const {
    const double u = cosine_ * x + sine_ * y, v = cosine_ * y - sine_ * x;
    switch (kind_) {
      case 0:
        return first_;
      case 1:
        return wave(u) > 0 ? first_ : second_;
      case 2:
        return (wave(u) > 0) == (wave(v) > 0) ? first_ : second_;
      case 3:
        return first_.mixed(second_, std::clamp(0.5 + 0.6 * u, 0.0, 1.0));
      default:
        return wave(u) + wave(v) > 0.9 ? second_ : first_;
    }
  }

 private:
  double wave(double u) const { return std::sin(frequency_ * kPi * u); }

  Color first_, second_;
  int64_t kind_;
  double cosine_, sine_, frequency_;
};

// Everything random about one picture.
class Scene {
 public:
  Scene(int64_t label, RandomStream& random)
      : label_(label),
        radius_(random.uniform(0.45, 0.8)),
        turn_(random.uniform(0, 2 * kPi)),
        noise_(random.uniform(0, 0.06)),
        background_(make_background(random)),
        fill_(make_fill(random)) {
    const double room = 1 - 0.8 * radius_;  // the shape may leave the picture a little
    x_ = random.uniform(-room, room);
    y_ = random.uniform(-room, room);
  }

  double noise() const { return noise_; }

  Color at(double x, double y) const {
    const double u = (x - x_) / radius_, v = (y - y_) / radius_;
    const double c = std::cos(turn_), s = std::sin(turn_);
    const bool inside = u * u + v * v < 1 && inside_shape(label_, c * u + s * v, c * v - s * u);
    return inside ? fill_.at(x, y) : background_.at(x, y);
  }

 private:
  // Textures of the background vary little, so that the outline stays the strongest edge.
  Texture make_background(RandomStream& random) {
    background_color_ = random_color(random);
    return Texture(background_color_, background_color_.mixed(random_color(random), 0.3), random);
  }

  Texture make_fill(RandomStream& random) {
    constexpr double kLeastContrast = 0.55;
    Color color = random_color(random);
    while (color.distance(background_color_) < kLeastContrast) color = random_color(random);
    return Texture(color, color.mixed(random_color(random), 0.3), random);
  }

  int64_t label_;
  double radius_, turn_, noise_;
  Color background_color_{};
  Texture background_, fill_;
  double x_ = 0, y_ = 0;
};

void draw(const Scene& scene, int64_t size, RandomStream& random, uint8_t* image) {
  const double step = 2.0 / static_cast<double>(size);
  const int64_t plane = size * size;
  for (int64_t pixel = 0; pixel < plane; ++pixel) {
    Color sum{0, 0, 0};
    for (int sample = 0; sample < kSamples * kSamples; ++sample) {
      const double dx = (sample % kSamples + 0.5) / kSamples,
                   dy = (sample / kSamples + 0.5) / kSamples;
      const Color color = scene.at((static_cast<double>(pixel % size) + dx) * step - 1,
                                   (static_cast<double>(pixel / size) + dy) * step - 1);
      sum = {sum.r + color.r, sum.g + color.g, sum.b + color.b};
    }
    const double channel[] = {sum.r, sum.g, sum.b};
    for (int c = 0; c < 3; ++c) {
      const double value =
          channel[c] / (kSamples * kSamples) + scene.noise() * (2 * random.uniform() - 1);
      image[c * plane + pixel] =
          static_cast<uint8_t>(std::lround(255 * std::clamp(value, 0.0, 1.0)));
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
  const double radius = std::hypot(x, y);
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
      return radius < 0.95 && std::hypot(x - 0.45, y) > 0.75;
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
  data.mean = {0.5f, 0.5f, 0.5f};
  data.std = {0.27f, 0.27f, 0.27f};
  return data;
}

}  // namespace mocograd
