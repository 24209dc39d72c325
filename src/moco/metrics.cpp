#include "moco/metrics.h"

#include <limits>
#include <string_view>

#include "io/input_file.h"
#include "io/json.h"
#include "tensor/error.h"

namespace mocograd {
namespace {

// One event, whose numbers are asked for by name.
class Event {
 public:
  explicit Event(std::string_view line) : json_(parse_json(line)) {
    const JsonValue* name = json_.find("event");
    if (!name || !name->get<std::string>()) throw Error("is no object with an \"event\"");
    name_ = *name->get<std::string>();
  }

  const std::string& name() const { return name_; }

  double number(std::string_view key) const {
    const JsonValue& value = member(key);
    if (value.get<std::nullptr_t>()) return std::numeric_limits<double>::quiet_NaN();
    if (const int64_t* integer = value.get<int64_t>()) return static_cast<double>(*integer);
    if (const double* real = value.get<double>()) return *real;
    throw Error("\"" + std::string(key) + "\" is no number");
  }

  int64_t count(std::string_view key) const {
    const int64_t* integer = member(key).get<int64_t>();
    if (!integer || *integer < 0) throw Error("\"" + std::string(key) + "\" is no count");
    return *integer;
  }

 private:
  const JsonValue& member(std::string_view key) const {
    const JsonValue* value = json_.find(key);
    if (!value) throw Error("the event \"" + name_ + "\" has no \"" + std::string(key) + "\"");
    return *value;
  }

  const JsonValue json_;
  std::string name_;
};

void read_line(std::string_view line, RunMetrics& metrics) {
  const Event event(line);
  if (event.name() == "step") {
    metrics.steps.push_back({.step = event.count("step"),
                             .epoch = event.count("epoch"),
                             .loss = event.number("loss"),
                             .top1 = event.number("top1"),
                             .lr = event.number("lr"),
                             .images_per_s = event.number("images_per_s"),
                             .data_wait_s = event.number("data_wait_s")});
  } else if (event.name() == "epoch") {
    metrics.epochs.push_back({.epoch = event.count("epoch"),
                              .loss = event.number("loss"),
                              .top1 = event.number("top1"),
                              .lr = event.number("lr"),
                              .images_per_s = event.number("images_per_s"),
                              .seconds = event.number("seconds"),
                              .data_wait_s = event.number("data_wait_s")});
  } else if (event.name() == "knn") {
    metrics.knn.push_back({event.count("epoch"), event.number("top1")});
  }
}

}  // namespace

RunMetrics read_metrics(const std::string& path) {
  InputFile file(path);
  const std::string text = file.read_text();
  RunMetrics metrics;
  int64_t number = 0;
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos;
       begin = end + 1) {
    ++number;
    try {
      read_line(std::string_view(text).substr(begin, end - begin), metrics);
    } catch (const Error& error) {
      file.fail(detail::concatenate("line ", number, ": ", error.what()));
    }
  }
  return metrics;
}

}  // namespace mocograd
