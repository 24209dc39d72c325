#include "cli/contact_sheet.h"

#include <algorithm>
#include <cmath>

#include "tensor/backend.h"

namespace mocograd {
namespace {

constexpr int64_t kMaxClasses = 10;
constexpr int64_t kGap = 1;
constexpr uint8_t kBackground = 32;

using Row = std::vector<ViewRecipe>;

// The first images of each class that has some.
std::vector<Row> class_rows(const ImageSet& images, int64_t classes, const ViewSettings& settings,
                            size_t columns) {
  std::vector<Row> rows(static_cast<size_t>(std::min(classes, kMaxClasses)));
  for (int64_t image = 0; image < images.size(); ++image) {
    const int64_t label = images.labels.data<int64_t>()[image];
    if (label < 0 || label >= kMaxClasses) continue;
    Row& row = rows[static_cast<size_t>(label)];
    if (row.size() < columns) row.push_back(evaluation_view(settings, image));
  }
  std::erase_if(rows, [](const Row& row) { return row.empty(); });
  return rows;
}

// The whole images, the queries and the keys of epoch 1.
std::vector<Row> view_rows(int64_t images, const ViewSettings& settings) {
  std::vector<Row> rows(3);
  for (int64_t image = 0; image < images; ++image) {
    rows[0].push_back(evaluation_view(settings, image));
    rows[1].push_back(sample_view(settings, 1, image, 0));
    rows[2].push_back(sample_view(settings, 1, image, 1));
  }
  return rows;
}

// From the column `left` on.
void place(ContactSheet& sheet, int64_t top, int64_t left, const Row& row, const Tensor& images,
           int64_t tile) {
  const Tensor views = Tensor::empty({static_cast<int64_t>(row.size()), tile, tile, 3});
  views.backend().augment(images, row.data(), views);
  const float* value = views.data<float>();
  for (int64_t column = 0; column < views.dim(0); ++column) {
    for (int64_t y = 0; y < tile; ++y) {
      const int64_t pixel = (top + y) * sheet.width + left + column * (tile + kGap);
      for (int64_t i = 0; i < 3 * tile; ++i, ++value)
        sheet.rgb[static_cast<size_t>(3 * pixel + i)] =
            static_cast<uint8_t>(std::lround(255 * std::clamp(*value, 0.0f, 1.0f)));
    }
  }
}

}  // namespace

ContactSheet contact_sheet(const DataSet& data, Augmentation augmentation, uint64_t seed,
                           int64_t columns, int64_t tile) {
  const Tensor& images = data.train.images;
  // Mean 0 and standard deviation 1: the views stay in [0, 1].
  const ViewSettings settings{augmentation, seed, images.dim(2), images.dim(3), {}, {1, 1, 1}};
  const std::vector<Row> classes = class_rows(data.train, static_cast<int64_t>(data.classes.size()),
                                              settings, static_cast<size_t>(columns));
  const std::vector<Row> views = view_rows(std::min(columns, data.train.size()), settings);

  const int64_t between = std::max<int64_t>(tile / 4, kGap);  // classes and views
  ContactSheet sheet;
  sheet.width = kGap + columns * (tile + kGap);
  sheet.height =
      kGap + static_cast<int64_t>(classes.size() + views.size()) * (tile + kGap) + between;
  sheet.rgb.assign(static_cast<size_t>(3 * sheet.height * sheet.width), kBackground);
  int64_t top = kGap;
  for (const Row& row : classes) {
    place(sheet, top, kGap, row, images, tile);
    top += tile + kGap;
  }
  top += between;
  for (const Row& row : views) {
    place(sheet, top, kGap, row, images, tile);
    top += tile + kGap;
  }
  return sheet;
}

ContactSheet neighbor_sheet(const DataSet& data, const std::vector<int64_t>& queries,
                            const Tensor& neighbors, int64_t tile) {
  constexpr uint8_t kRight[] = {60, 200, 80}, kWrong[] = {220, 60, 60};
  constexpr int64_t kLine = 2;  // pixels below a tile
  const auto settings = [](const ImageSet& set) {
    return ViewSettings{Augmentation::none, 0, set.images.dim(2), set.images.dim(3), {}, {1, 1, 1}};
  };
  const int64_t rows = static_cast<int64_t>(queries.size()), k = neighbors.dim(1);
  const int64_t row_height = tile + kLine + kGap, first = 2 * kGap + tile + tile / 4;
  ContactSheet sheet;
  sheet.width = first + k * (tile + kGap);
  sheet.height = kGap + rows * row_height;
  sheet.rgb.assign(static_cast<size_t>(3 * sheet.height * sheet.width), kBackground);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t query = queries[static_cast<size_t>(r)], top = kGap + r * row_height;
    const int64_t* near = neighbors.data<int64_t>() + r * k;
    place(sheet, top, kGap, {evaluation_view(settings(*data.test), query)}, data.test->images,
          tile);
    Row row;
    for (int64_t i = 0; i < k; ++i) row.push_back(evaluation_view(settings(data.train), near[i]));
    place(sheet, top, first, row, data.train.images, tile);
    for (int64_t i = 0; i < k; ++i) {
      const bool right =
          data.train.labels.data<int64_t>()[near[i]] == data.test->labels.data<int64_t>()[query];
      for (int64_t y = top + tile; y < top + tile + kLine; ++y) {
        for (int64_t x = 0; x < tile; ++x) {
          const int64_t pixel = y * sheet.width + first + i * (tile + kGap) + x;
          std::copy_n(right ? kRight : kWrong, 3, sheet.rgb.begin() + 3 * pixel);
        }
      }
    }
  }
  return sheet;
}

}  // namespace mocograd
