// Statistics as members of a JSON object, under the same names wherever they are written.
#pragma once

#include "io/json.h"
#include "tensor/statistics.h"

namespace mocograd {

inline JsonObject& add_statistics(JsonObject& json, const TensorStatistics& s) {
  return json.add("min", s.min)
      .add("max", s.max)
      .add("mean", s.mean)
      .add("std", s.std)
      .add("l2", s.l2)
      .add("nan", s.nan)
      .add("inf", s.infinite);
}

}  // namespace mocograd
