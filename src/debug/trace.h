// Trace: one record for each operation of a step, as JSON lines and as a table.
//
//   {"step":0,"index":3,"phase":"forward","name":"encoder_q.conv1.conv2d","op":"conv2d",
//    "module":"encoder_q.conv1","source":"src/autograd/ops/conv2d.cpp:32",
//    "us":812.4,"bytes":2097152,
//    "inputs":[{"id":1,"shape":[8,32,32,3],"dtype":"f32"},…],
//    "outputs":[{"id":7,"shape":[8,32,32,64],"dtype":"f32","min":…,"max":…,"mean":…,"std":…,
//                "l2":…,"nan":0,"inf":0,"hash":"…"}]}
//
// Shapes are the engine's (NHWC). An id stands for what was written to a piece of memory: the same
// id, the same numbers. us is the time since the record before it, without the tracer's own work;
// bytes is the memory of the outputs. An input gradient that was not needed is {"id":null}; where no
// number is finite, min, max, mean, std and l2 are null.
#pragma once

#include <chrono>
#include <map>
#include <string>

#include "debug/operation_names.h"
#include "io/hash.h"
#include "io/line_file.h"

namespace mocograd {

enum class TraceLevel {
  names,       // without inputs and outputs
  shapes,      // with their ids, shapes and dtypes
  statistics,  // with the outputs' statistics and hashes
};

TraceLevel parse_trace_level(const std::string& name);  // throws UsageError

// Who reads the records. Fields as above.
struct TraceTensor {
  int64_t id = 0;  // 0: there is no tensor
  Tensor tensor;
};
struct TraceRecord {
  int64_t step = 0, index = 0;
  std::string name;
  const Operation* operation = nullptr;
  std::vector<TraceTensor> inputs, outputs;
  double microseconds = 0;
  int64_t bytes = 0;
};

class TraceSink {
 public:
  virtual ~TraceSink() = default;
  virtual void record(const TraceRecord& record) = 0;
};

class Tracer : public OperationObserver {
 public:
  explicit Tracer(TraceSink& sink) : sink_(sink) {}

  OperationNames& names() { return names_; }
  void begin_step(int64_t step);
  void operation(const Operation& operation) override;

 private:
  using Clock = std::chrono::steady_clock;

  struct Written {  // to a piece of memory; its address may come back with another owner
    std::weak_ptr<const void> owner;
    int64_t id = 0;
  };
  int64_t id_of_input(const Tensor& tensor);

  TraceSink& sink_;
  OperationNames names_;
  std::map<const void*, Written> written_;
  int64_t next_id_ = 1, step_ = 0, index_ = 0;
  Clock::time_point previous_end_ = Clock::now();
};

// The records as JSON lines.
class JsonTrace : public TraceSink {
 public:
  JsonTrace(const std::string& path, TraceLevel level) : file_(path), level_(level) {}
  void record(const TraceRecord& record) override;

 private:
  LineFile file_;
  TraceLevel level_;
};

// The records as a table for people.
class TraceTable : public TraceSink {
 public:
  explicit TraceTable(TraceLevel level) : level_(level) {}
  void record(const TraceRecord& record) override;

 private:
  TraceLevel level_;
  bool header_printed_ = false;
};

// A fingerprint of a step: of all names and of all numbers that its operations wrote, in order.
class TraceHash : public TraceSink {
 public:
  void record(const TraceRecord& record) override;
  const Hash64& value() const { return hash_; }

 private:
  Hash64 hash_;
};

}  // namespace mocograd
