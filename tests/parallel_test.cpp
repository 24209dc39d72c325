// The compute threads: each task once, whatever the number of threads, and errors reach the caller.
#include "cpu/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "tensor/error.h"

namespace mocograd {
namespace {

class ParallelTest : public testing::TestWithParam<int> {
 protected:
  ParallelTest() { set_num_threads(GetParam()); }
  ~ParallelTest() override { set_num_threads(threads_before_); }

 private:
  int threads_before_ = num_threads();
};

TEST_P(ParallelTest, EachTaskRunsOnce) {
  EXPECT_EQ(num_threads(), GetParam());
  for (int64_t tasks : {0, 1, 2, 3, 17, 1000}) {
    std::vector<std::atomic<int>> runs(static_cast<size_t>(tasks));
    for (int repeat = 0; repeat < 50; ++repeat) {
      parallel_tasks(tasks, [&](int64_t i) { ++runs[static_cast<size_t>(i)]; });
    }
    for (const std::atomic<int>& count : runs) EXPECT_EQ(count, 50);
  }
}

TEST_P(ParallelTest, WhatTasksWroteIsThereAfterwards) {
  std::vector<int64_t> squares(10007, -1);
  parallel_tasks(10007, [&](int64_t i) { squares[static_cast<size_t>(i)] = i * i; });
  for (size_t i = 0; i < squares.size(); ++i) ASSERT_EQ(squares[i], static_cast<int64_t>(i * i));
}

TEST_P(ParallelTest, ATaskMayHaveTasksOfItsOwn) {
  std::atomic<int> runs = 0;
  std::atomic<bool> moved = false;
  parallel_tasks(8, [&](int64_t) {
    const std::thread::id here = std::this_thread::get_id();
    parallel_tasks(16, [&](int64_t) {
      ++runs;
      if (std::this_thread::get_id() != here) moved = true;
    });
  });
  EXPECT_EQ(runs, 8 * 16);
  EXPECT_FALSE(moved) << "tasks inside of a task run on its thread";
}

TEST_P(ParallelTest, AnErrorReachesTheCallerAndThePoolGoesOn) {
  for (int64_t bad : {0, 5, 99}) {
    try {
      parallel_tasks(100, [&](int64_t i) {
        if (i == bad) throw Error("task " + std::to_string(i) + " failed");
      });
      FAIL() << "the error got lost";
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()), "task " + std::to_string(bad) + " failed");
    }
    std::atomic<int> runs = 0;
    parallel_tasks(100, [&](int64_t) { ++runs; });
    EXPECT_EQ(runs, 100);
  }
}

TEST_P(ParallelTest, SeveralThreadsMayCall) {
  std::atomic<int> runs = 0;
  std::vector<std::thread> callers;
  for (int c = 0; c < 3; ++c) {
    callers.emplace_back([&] {
      for (int repeat = 0; repeat < 20; ++repeat) parallel_tasks(13, [&](int64_t) { ++runs; });
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(runs, 3 * 20 * 13);
}

INSTANTIATE_TEST_SUITE_P(Threads, ParallelTest, testing::Values(1, 2, 3, 8));

TEST(ParallelSettingTest, OneThreadIsTheCaller) {
  const int before = num_threads();
  set_num_threads(1);
  const std::thread::id here = std::this_thread::get_id();
  parallel_tasks(10, [&](int64_t) { EXPECT_EQ(std::this_thread::get_id(), here); });
  set_num_threads(before);
  EXPECT_EQ(num_threads(), before);
}

TEST(ParallelSettingTest, RefusesNoThreads) {
  EXPECT_THROW(set_num_threads(0), Error);
  EXPECT_GE(num_threads(), 1);
}

}  // namespace
}  // namespace mocograd
