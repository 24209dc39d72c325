// The CPU's memory: blocks are reused, and a training step takes no new ones once it has been made.
#include <gtest/gtest.h>

#include <cstring>

#include "autograd/ops/info_nce.h"
#include "cpu/block_arena.h"
#include "cpu/cpu_memory.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"
#include "tiny_step.h"

namespace mocograd {
namespace {

constexpr size_t kUnit = BlockArena::kUnit;

char* take(BlockArena& arena, size_t units) {
  char* const block = static_cast<char*>(arena.take(units * kUnit));
  if (block) std::memset(block, 1, units * kUnit);
  return block;
}

TEST(BlockArenaTest, FreeNeighboursBecomeOneBlock) {
  for (const auto& order : {std::vector<int>{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {2, 1, 0}}) {
    BlockArena arena;
    char* const blocks[] = {take(arena, 1), take(arena, 2), take(arena, 1)};
    take(arena, 1);  // what follows stays in use
    for (int i : order) arena.put(blocks[i], (i == 1 ? 2 : 1) * kUnit);
    EXPECT_EQ(take(arena, 4), blocks[0]);
    EXPECT_EQ(arena.bytes_used(), 5 * kUnit);
  }
}

TEST(BlockArenaTest, TheLowestPlaceThatFitsIsTaken) {
  BlockArena arena;
  char* const first = take(arena, 1);
  char* const second = take(arena, 3);
  EXPECT_EQ(second, first + kUnit);
  char* const third = take(arena, 1);
  arena.put(first, kUnit);
  arena.put(second, 3 * kUnit);
  EXPECT_EQ(take(arena, 2), first);
  EXPECT_EQ(take(arena, 3), third + kUnit);
  EXPECT_EQ(take(arena, 2), first + 2 * kUnit);
}

TEST(BlockArenaTest, ABlockMayBeLargerThanARegion) {
  BlockArena arena;
  void* const large = arena.take(size_t{6} << 30);  // addresses: nothing of it is touched
  if (!large) GTEST_SKIP() << "no 6 GiB of addresses";
  char* const small = take(arena, 1);
  arena.put(large, size_t{6} << 30);
  arena.put(small, kUnit);
  EXPECT_NE(take(arena, 1), nullptr);
}

// Forward and backward, of what is as large as the logits: they fit where one such array was, which
// was made the only such place, and nothing as large is taken beside it.
TEST(CpuMemoryTest, InfoNceTakesItsLogitsAndNoMoreOfTheirSize) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "under AddressSanitizer no block is kept";
#endif
  const int64_t N = 64, D = 2, K = 200'000;
  const auto unit = [](const Shape& shape) { return Tensor::full(shape, 0.7, {}); };
  const Variable q(unit({N, D}), true);
  const Tensor k = unit({N, D}), queue = unit({K, D});
  std::vector<Tensor> held;  // in every place where logits would fit, and in a new one
  size_t used = 0;
  do {
    used = CpuMemory::bytes_used();
    held.push_back(Tensor::empty({N, 1 + K}));
  } while (CpuMemory::bytes_used() == used);
  used = CpuMemory::bytes_used();
  held.pop_back();
  info_nce(q, k, queue, 0.2).backward();
  EXPECT_LT(CpuMemory::bytes_used() - used, static_cast<size_t>(N * (1 + K)) * sizeof(float) / 2);
}

TEST(CpuMemoryTest, ATrainingStepTakesNothingFromTheSystemAfterTheSecond) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "under AddressSanitizer no block is kept";
#endif
  MocoConfig config = tiny_config({}, 2);
  config.encoder.width = 32;  // the first stage's activations are large blocks
  Moco moco(config, 3);
  Sgd optimizer(moco.encoder_q(), {});
  const ViewPair views{random_tensor({32, 32, 32, 3}, 1, DType::f32),
                       random_tensor({32, 32, 32, 3}, 2, DType::f32),
                       {},
                       {}};
  const auto step = [&] { moco.train_step(views, optimizer, 0.1); };
  const int threads = num_threads();
  set_num_threads(1);  // which of several runs a task, and needs scratch memory for it, is chance
  step();
  step();
  const size_t before = CpuMemory::bytes_used(), scratch_before = scratch_bytes_taken();
  for (int i = 0; i < 3; ++i) step();
  set_num_threads(threads);
  EXPECT_EQ(CpuMemory::bytes_used(), before);
  EXPECT_EQ(scratch_bytes_taken(), scratch_before);
}

}  // namespace
}  // namespace mocograd
