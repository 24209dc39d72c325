// Statistics as members of a JSON object, under the same names wherever they are written. Where no
// number is finite, min, max, mean, std and l2 are null.
#pragma once

#include <limits>

#include "io/json.h"
#include "tensor/statistics.h"

namespace mocograd {

inline JsonObject& add_statistics(JsonObject& json, const TensorStatistics& s) {
  const auto of_finite = [&s](double value) {
    return s.finite > 0 ? value : std::numeric_limits<double>::quiet_NaN();
  };
  return json.add("min", of_finite(s.min))
      .add("max", of_finite(s.max))
      .add("mean", of_finite(s.mean))
      .add("std", of_finite(s.std))
      .add("l2", of_finite(s.l2))
      .add("nan", s.nan)
      .add("inf", s.infinite);
}

}  // namespace mocograd
