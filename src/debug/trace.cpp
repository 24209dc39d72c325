#include "debug/trace.h"

#include <cstdio>

#include "debug/statistics_json.h"

namespace mocograd {
namespace {

void add_numbers(Hash64& hash, const Tensor& tensor) {
  const Tensor host = tensor.to(Device::cpu);
  hash.add(host.raw_bytes(), host.bytes());
}

JsonObject json_of(const TraceTensor& traced, bool with_statistics) {
  JsonObject json;
  if (traced.id == 0) return json.add_null("id");
  json.add("id", traced.id)
      .add("shape", traced.tensor.shape().to_vector())
      .add("dtype", name_of(traced.tensor.dtype()));
  if (!with_statistics) return json;
  Hash64 hash;
  add_numbers(hash, traced.tensor);
  return add_statistics(json, statistics_of(traced.tensor)).add("hash", hash.text());
}

std::vector<JsonObject> json_of(const std::vector<TraceTensor>& tensors, bool with_statistics) {
  std::vector<JsonObject> json;
  for (const TraceTensor& traced : tensors) json.push_back(json_of(traced, with_statistics));
  return json;
}

}  // namespace

TraceLevel parse_trace_level(const std::string& name) {
  if (name == "names") return TraceLevel::names;
  if (name == "shapes") return TraceLevel::shapes;
  if (name == "statistics") return TraceLevel::statistics;
  throw UsageError("--level " + name + ": must be statistics, shapes or names");
}

void Tracer::begin_step(int64_t step) {
  step_ = step;
  names_.begin_step();
  previous_end_ = Clock::now();
}

int64_t Tracer::id_of_input(const Tensor& tensor) {
  Written& written = written_[tensor.raw_bytes()];
  const std::weak_ptr<const void> owner = tensor.storage();
  const bool same = !written.owner.owner_before(owner) && !owner.owner_before(written.owner);
  if (written.id == 0 || !same) written = {owner, next_id_++};
  return written.id;
}

void Tracer::operation(const Operation& operation) {
  TraceRecord record{.step = step_,
                     .index = index_++,
                     .name = names_.name(operation),
                     .operation = &operation,
                     .inputs = {},
                     .outputs = {}};
  record.microseconds =
      std::chrono::duration<double, std::micro>(Clock::now() - previous_end_).count();
  for (const Tensor& input : operation.inputs) record.inputs.push_back({id_of_input(input), input});
  for (const Tensor& output : operation.outputs) {
    if (!output.defined()) {
      record.outputs.push_back({});
      continue;
    }
    written_[output.raw_bytes()] = {output.storage(), next_id_};
    record.outputs.push_back({next_id_++, output});
    record.bytes += static_cast<int64_t>(output.bytes());
  }
  sink_.record(record);
  previous_end_ = Clock::now();
}

void JsonTrace::record(const TraceRecord& record) {
  const Operation& operation = *record.operation;
  JsonObject json;
  json.add("step", record.step)
      .add("index", record.index)
      .add("phase", name_of(operation.phase))
      .add("name", record.name)
      .add("op", operation.op)
      .add("module", operation.module)
      .add("source", source_of(operation))
      .add("us", record.microseconds)
      .add("bytes", record.bytes);
  if (level_ != TraceLevel::names) {
    json.add("inputs", json_of(record.inputs, false));
    json.add("outputs", json_of(record.outputs, level_ == TraceLevel::statistics));
  }
  file_.append_line(json.text());
}

void TraceTable::record(const TraceRecord& record) {
  const Operation& operation = *record.operation;
  if (!header_printed_) {
    std::printf("%5s %-9s %-46s", "index", "phase", "name");
    if (level_ != TraceLevel::names) std::printf(" %-22s %9s", "written", "us");
    if (level_ == TraceLevel::statistics)
      std::printf(" %10s %10s %10s %10s", "min", "max", "mean", "std");
    std::printf("\n");
    header_printed_ = true;
  }
  std::printf("%5lld %-9s %-46s", static_cast<long long>(record.index), name_of(operation.phase),
              record.name.c_str());
  bool first = true;
  for (const TraceTensor& output : record.outputs) {
    if (level_ == TraceLevel::names || output.id == 0) continue;
    if (!first) std::printf("\n%62s", "");  // under the first one
    std::printf(" %-22s", output.tensor.shape().to_string().c_str());
    if (first) std::printf(" %9.0f", record.microseconds);
    if (level_ == TraceLevel::statistics) {
      const TensorStatistics s = statistics_of(output.tensor);
      std::printf("%*s %10.3g %10.3g %10.3g %10.3g", first ? 0 : 10, "", s.min, s.max, s.mean,
                  s.std);
      if (s.nan > 0) std::printf("  NaN: %lld", static_cast<long long>(s.nan));
      if (s.infinite > 0) std::printf("  Inf: %lld", static_cast<long long>(s.infinite));
    }
    first = false;
  }
  std::printf("\n");
}

void TraceHash::record(const TraceRecord& record) {
  hash_.add(record.name.data(), record.name.size());
  for (const TraceTensor& output : record.outputs) {
    if (output.id != 0) add_numbers(hash_, output.tensor);
  }
}

}  // namespace mocograd
