#include "cpu/parallel.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "tensor/error.h"

namespace mocograd {
namespace {

thread_local bool inside_task = false;

// Workers sleep between jobs. A job is a counter of tasks: whoever is free takes the next index.
class ThreadPool {
 public:
  explicit ThreadPool(int threads) {
    try {
      for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
    } catch (const std::system_error& error) {
      stop();
      throw Error(
          detail::concatenate("cannot start ", threads, " threads: ", error.code().message()), "",
          "--threads asks for fewer");
    } catch (...) {
      stop();
      throw;
    }
  }

  ~ThreadPool() { stop(); }

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  void run(int64_t tasks, void (*task)(void*, int64_t), void* context) {
    const std::lock_guard<std::mutex> one_job_at_a_time(run_mutex_);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      task_ = task;
      context_ = context;
      tasks_ = tasks;
      next_.store(0, std::memory_order_relaxed);
      busy_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
      error_ = nullptr;
      ++job_;
      job_hint_.store(job_, std::memory_order_release);
    }
    wake_.notify_all();
    take_tasks();
    spin([this] { return busy_.load(std::memory_order_acquire) == 0; });
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return busy_.load(std::memory_order_acquire) == 0; });
    if (error_) std::rethrow_exception(error_);
  }

 private:
  void stop() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stopping_ = true;
      ++job_;
      job_hint_.store(job_, std::memory_order_release);
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  // Kernels follow each other within microseconds, waking a sleeper takes tens of them: look for a
  // while before going to sleep.
  template <class Condition>
  static void spin(const Condition& met) {
    for (int i = 0; i < 20000 && !met(); ++i) __builtin_ia32_pause();
  }

  void take_tasks() {
    inside_task = true;
    try {
      for (int64_t i = next_.fetch_add(1); i < tasks_; i = next_.fetch_add(1)) task_(context_, i);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex_);
      error_ = std::current_exception();
      next_.store(tasks_);
    }
    inside_task = false;
  }

  void work() {
    uint64_t seen = 0;
    for (;;) {
      spin([&] { return job_hint_.load(std::memory_order_acquire) != seen; });
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return job_ != seen; });
        seen = job_;
        if (stopping_) return;
      }
      take_tasks();
      if (busy_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        const std::lock_guard<std::mutex> lock(mutex_);
        done_.notify_one();
      }
    }
  }

  std::vector<std::thread> workers_;
  std::mutex run_mutex_;  // held for the length of a job
  std::mutex mutex_;      // guards the job's description below
  std::condition_variable wake_, done_;
  uint64_t job_ = 0;
  std::atomic<uint64_t> job_hint_{0};
  bool stopping_ = false;
  void (*task_)(void*, int64_t) = nullptr;
  void* context_ = nullptr;
  int64_t tasks_ = 0;
  std::atomic<int64_t> next_{0};
  std::atomic<int> busy_{0};  // workers that have not finished this job
  std::exception_ptr error_;
};

int available_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

// threads: of the pool that the first call starts
std::unique_ptr<ThreadPool>& pool(int threads = available_cores()) {
  static auto instance = std::make_unique<ThreadPool>(threads);
  return instance;
}

}  // namespace

void set_num_threads(int threads) {
  MOCO_CHECK(threads >= 1, "threads: at least 1, got ", threads);
  if (pool(threads)->threads() != threads) pool() = std::make_unique<ThreadPool>(threads);
}

int num_threads() {
  return pool()->threads();
}

void run_parallel_tasks(int64_t tasks, void (*task)(void* context, int64_t index), void* context) {
  if (tasks <= 1 || inside_task || num_threads() == 1) {
    for (int64_t i = 0; i < tasks; ++i) task(context, i);
    return;
  }
  pool()->run(tasks, task, context);
}

}  // namespace mocograd
