// A training step takes its memory from the system once: what the second step still needed is
// there for all that follow.
#include "cpu/parallel.h"
#include "cpu/system_memory.h"
#include "tiny_step.h"

#include <gtest/gtest.h>

namespace mocograd {
namespace {

class MemoryTest : public testing::Test {
 protected:
  // On one thread: which of several runs a task, and needs scratch memory for it, is chance.
  MemoryTest() { set_num_threads(1); }
  ~MemoryTest() override { set_num_threads(threads_); }

  static void expect_nothing_taken(Moco& moco, Sgd& optimizer, const ViewPair& views) {
#if defined(__SANITIZE_ADDRESS__)
    GTEST_SKIP() << "under AddressSanitizer freed blocks are not kept";
#endif
    for (int step = 1; step <= 2; ++step) moco.train_step(views, optimizer, 0.1);
    const int64_t after_two = blocks_from_system();
    for (int step = 3; step <= 5; ++step) moco.train_step(views, optimizer, 0.1);
    EXPECT_EQ(after_two, blocks_from_system()) << "blocks taken by steps 3 to 5";
  }

 private:
  const int threads_ = num_threads();
};

TEST_F(MemoryTest, StepsAfterTheSecondTakeNoMemoryFromTheSystem) {
  TinyStep step;
  expect_nothing_taken(step.moco, step.optimizer, step.views);
}

TEST_F(MemoryTest, NorDoTheySymmetrically) {
  TinyStep step(DType::f32, true);
  expect_nothing_taken(step.moco, step.optimizer, step.views);
}

// As wide as resnet20 is, so that Winograd's convolutions take part.
TEST_F(MemoryTest, NorWhereTheConvolutionsAreWinograds) {
  Moco moco({.encoder = {.arch = "resnet20", .dim = 16, .splits = 2}, .queue_size = 64}, 1);
  Sgd optimizer(moco.encoder_q(), {});
  const ViewPair views{random_tensor({16, 16, 16, 3}, 0, DType::f32),
                       random_tensor({16, 16, 16, 3}, 1, DType::f32),
                       {},
                       {}};
  expect_nothing_taken(moco, optimizer, views);
}

}  // namespace
}  // namespace mocograd
