// The loader: which images, in which order, whoever makes the batches.
#include "data/loader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "cuda/emulator/scheduler.h"
#include "tensor/backend.h"
#include "tensor/error.h"
#include "tensor/random.h"

namespace mocograd {
namespace {

constexpr int64_t kImages = 23, kBatch = 5, kSteps = 4;  // three images are left over

// Image i has the value i everywhere, or noise.
DataSet make_data(bool plain = true) {
  DataSet data;
  data.name = "test";
  data.train = {Tensor::empty({kImages, 3, 9, 7}, {.dtype = DType::u8}),
                Tensor::zeros({kImages}, {.dtype = DType::i64})};
  RandomStream random(3, Purpose::test);
  uint8_t* pixels = data.train.images.data<uint8_t>();
  for (int64_t i = 0; i < data.train.images.numel(); ++i)
    pixels[i] = static_cast<uint8_t>(plain ? i / (3 * 9 * 7) : random.below(256));
  data.mean = {0, 0, 0};
  data.std = {1, 1, 1};
  return data;
}

std::vector<int64_t> indices_of(const ViewBatch& batch) {
  const int64_t* indices = batch.indices.data<int64_t>();
  return {indices, indices + batch.indices.numel()};
}

void expect_same_batch(const ViewBatch& a, const ViewBatch& b) {
  EXPECT_EQ(a.epoch, b.epoch);
  EXPECT_EQ(a.step_in_epoch, b.step_in_epoch);
  EXPECT_EQ(indices_of(a), indices_of(b));
  EXPECT_EQ(a.im_q.to_vector(), b.im_q.to_vector());
  EXPECT_EQ(a.im_k.to_vector(), b.im_k.to_vector());
}

std::vector<ViewBatch> take(const DataSet& data, int64_t count, int workers, int64_t first_step = 0,
                            uint64_t seed = 1) {
  ViewLoader loader(data, 6, Augmentation::v2, seed, kBatch, workers, first_step);
  std::vector<ViewBatch> batches;
  for (int64_t i = 0; i < count; ++i) batches.push_back(loader.next());
  return batches;
}

TEST(ViewLoader, TheNumberOfWorkersChangesNothing) {
  const DataSet data = make_data(false);
  const std::vector<ViewBatch> expected = take(data, 3 * kSteps, 1);
  for (const int workers : {2, 3, 8}) {
    const std::vector<ViewBatch> batches = take(data, 3 * kSteps, workers);
    for (size_t i = 0; i < expected.size(); ++i) expect_same_batch(batches[i], expected[i]);
  }
}

TEST(ViewLoader, CanBeginAtAnyStep) {
  const DataSet data = make_data(false);
  const std::vector<ViewBatch> expected = take(data, 3 * kSteps, 2);
  for (const int64_t first : {int64_t{1}, kSteps - 1, kSteps, 2 * kSteps + 1}) {
    const std::vector<ViewBatch> batches = take(data, 3 * kSteps - first, 2, first);
    for (size_t i = 0; i < batches.size(); ++i)
      expect_same_batch(batches[i], expected[i + static_cast<size_t>(first)]);
  }
}

TEST(ViewLoader, AnEpochTakesEachImageOnceAndDropsTheRest) {
  const DataSet data = make_data();
  const std::vector<ViewBatch> batches = take(data, 3 * kSteps, 2);
  std::set<std::vector<int64_t>> orders;
  for (int64_t epoch = 1; epoch <= 3; ++epoch) {
    std::vector<int64_t> order;
    for (int64_t step = 0; step < kSteps; ++step) {
      const ViewBatch& batch = batches[static_cast<size_t>((epoch - 1) * kSteps + step)];
      EXPECT_EQ(batch.epoch, epoch);
      EXPECT_EQ(batch.step_in_epoch, step);
      const std::vector<int64_t> indices = indices_of(batch);
      order.insert(order.end(), indices.begin(), indices.end());
    }
    EXPECT_FALSE(std::is_sorted(order.begin(), order.end()));
    const std::set<int64_t> images(order.begin(), order.end());
    EXPECT_EQ(images.size(), kSteps * kBatch);
    EXPECT_GE(*images.begin(), 0);
    EXPECT_LT(*images.rbegin(), kImages);
    orders.insert(order);
  }
  EXPECT_EQ(orders.size(), 3u);
  EXPECT_NE(indices_of(take(data, 1, 1, 0, 2)[0]), indices_of(batches[0])) << "seed";
  ViewLoader loader(data, 6, Augmentation::none, 1, kBatch, 1);
  EXPECT_EQ(loader.steps_per_epoch(), kSteps);
}

// Over many epochs each image is left out as often as any other, but for chance: three of 23.
TEST(ViewLoader, DropsOtherImagesInEveryEpoch) {
  const DataSet data = make_data();
  constexpr int64_t kEpochs = 400;
  ViewLoader loader(data, 1, Augmentation::none, 1, kBatch, 2);
  std::vector<double> taken(kImages);
  for (int64_t step = 0; step < kEpochs * kSteps; ++step) {
    for (const int64_t image : indices_of(loader.next())) ++taken[static_cast<size_t>(image)];
  }
  const double p = static_cast<double>(kSteps * kBatch) / kImages;
  for (const double count : taken)
    EXPECT_NEAR(count, kEpochs * p, 5 * std::sqrt(kEpochs * p * (1 - p)));
}

TEST(ViewLoader, RowsOfBothViewsAreOfTheImageThatIndicesNames) {
  const DataSet data = make_data();
  ViewLoader loader(data, 4, Augmentation::none, 1, kBatch, 2);
  for (int64_t step = 0; step < 2 * kSteps; ++step) {
    const ViewBatch batch = loader.next();
    const std::vector<int64_t> indices = indices_of(batch);
    ASSERT_EQ(batch.im_q.shape(), Shape({kBatch, 4, 4, 3}));
    ASSERT_EQ(batch.im_k.shape(), Shape({kBatch, 4, 4, 3}));
    const std::vector<double> q = batch.im_q.to_vector(), k = batch.im_k.to_vector();
    for (size_t i = 0; i < q.size(); ++i) {
      EXPECT_NEAR(255 * q[i], static_cast<double>(indices[i / 48]), 1e-4);
      EXPECT_NEAR(255 * k[i], static_cast<double>(indices[i / 48]), 1e-4);
    }
  }
}

TEST(ViewLoader, ViewsAreThoseThatAreDrawnForTheirKeys) {
  const DataSet data = make_data(false);
  const ViewSettings settings{Augmentation::v2, 1, 9, 7, data.mean, data.std};
  for (const ViewBatch& batch : take(data, 2 * kSteps, 2)) {
    for (int view = 0; view < 2; ++view) {
      std::vector<ViewRecipe> recipes;
      for (const int64_t image : indices_of(batch))
        recipes.push_back(sample_view(settings, batch.epoch, image, view));
      const Tensor expected = Tensor::empty({kBatch, 6, 6, 3});
      expected.backend().augment(data.train.images, recipes.data(), expected);
      EXPECT_EQ((view == 0 ? batch.im_q : batch.im_k).to_vector(), expected.to_vector());
    }
    EXPECT_NE(batch.im_q.to_vector(), batch.im_k.to_vector());
  }
}

TEST(ViewLoader, AnErrorOfAWorkerIsThrownByNext) {
  const DataSet data = make_data();
  for (const int workers : {1, 4}) {
    ViewLoader loader(data, /*image_size=*/-1, Augmentation::demo, 1, kBatch, workers);
    EXPECT_THROW(loader.next(), Error);
    EXPECT_THROW(loader.next(), Error);  // again, rather than waiting for ever
  }
}

TEST(ViewLoader, CanBeDestroyedWhileItsWorkersAreBusy) {
  const DataSet data = make_data();
  for (int i = 0; i < 20; ++i) {
    ViewLoader untouched(data, 64, Augmentation::v2, 1, kImages, 3);
    ViewLoader loader(data, 64, Augmentation::v2, 1, kImages, 3);
    for (int taken = 0; taken < i % 3; ++taken) loader.next();
  }
}

TEST(ViewLoader, RefusesWhatItCannotLoad) {
  const DataSet data = make_data();
  EXPECT_THROW(ViewLoader(data, 6, Augmentation::demo, 1, kImages + 1, 1), Error);
  EXPECT_THROW(ViewLoader(data, 6, Augmentation::demo, 1, 0, 1), Error);
  EXPECT_THROW(ViewLoader(data, 6, Augmentation::demo, 1, kBatch, 0), Error);
  EXPECT_THROW(ViewLoader(data, 6, Augmentation::demo, 1, kBatch, 1, -1), Error);
}

// A device's kernel rounds otherwise than the CPU's: by 1e-5 at most, as against torchvision.
void expect_near(const Tensor& actual, const Tensor& expected, const std::string& what) {
  const std::vector<double> a = actual.to_vector(), b = expected.to_vector();
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < b.size(); ++i) ASSERT_NEAR(a[i], b[i], 2e-5) << what << " at " << i;
}

TEST(ViewLoader, ADeviceMakesTheSameViews) {
  const DataSet data = make_data(false);
  const std::vector<ViewBatch> expected = take(data, 2 * kSteps, 1);
  ViewLoader loader(data, 6, Augmentation::v2, 1, kBatch, 3, 0, Device::cuda_emulated);
  EXPECT_EQ(loader.device(), Device::cuda_emulated);
  EXPECT_EQ(loader.steps_per_epoch(), kSteps);
  for (const ViewBatch& batch : expected) {
    const ViewBatch there = loader.next();
    EXPECT_EQ(there.im_q.device(), Device::cuda_emulated);
    EXPECT_EQ(there.epoch, batch.epoch);
    EXPECT_EQ(there.step_in_epoch, batch.step_in_epoch);
    EXPECT_EQ(indices_of(there), indices_of(batch));
    expect_near(there.im_q, batch.im_q, "im_q");
    expect_near(there.im_k, batch.im_k, "im_k");
  }
  constexpr std::array<float, 3> kMean = {0.5f, 0.25f, 0.125f}, kStd = {1, 2, 4};
  expect_near(evaluation_batch(data.train, 3, 7, 8, kMean, kStd, Device::cuda_emulated),
              evaluation_batch(data.train, 3, 7, 8, kMean, kStd), "evaluation");
}

TEST(ViewLoader, ImagesThatWouldFillADeviceStayOnTheHost) {
  const DataSet data = make_data(false);
  const size_t bytes = data.train.images.bytes();
  emulator::set_memory_limit(4 * bytes);
  ViewLoader fits(data, 6, Augmentation::v2, 1, kBatch, 1, 0, Device::cuda_emulated);
  ViewLoader again(data, 6, Augmentation::v2, 1, kBatch, 1, 0, Device::cuda_emulated);
  emulator::set_memory_limit(4 * bytes - 1);
  ViewLoader large(data, 6, Augmentation::v2, 1, kBatch, 1, 0, Device::cuda_emulated);
  emulator::set_memory_limit(SIZE_MAX);
  EXPECT_EQ(fits.device(), Device::cuda_emulated);
  EXPECT_EQ(again.device(), Device::cuda_emulated) << "though less is free";
  EXPECT_EQ(large.device(), Device::cpu);
  for (const ViewBatch& batch : take(data, 2, 1)) expect_same_batch(large.next(), batch);
}

TEST(EvaluationBatch, IsTheImagesInOrderNormalised) {
  const DataSet data = make_data(false);
  constexpr std::array<float, 3> kMean = {0.5f, 0.25f, 0.125f}, kStd = {0.5f, 0.25f, 2};
  const Tensor y = evaluation_batch(data.train, 3, 7, 8, kMean, kStd);
  ASSERT_EQ(y.shape(), Shape({4, 8, 8, 3}));
  std::vector<ViewRecipe> views(4);
  for (size_t i = 0; i < 4; ++i) {
    views[i].image = 3 + static_cast<int64_t>(i);
    views[i].height = 9;
    views[i].width = 7;
    std::copy(kMean.begin(), kMean.end(), views[i].mean);
    std::copy(kStd.begin(), kStd.end(), views[i].std);
  }
  const Tensor expected = Tensor::empty({4, 8, 8, 3});
  expected.backend().augment(data.train.images, views.data(), expected);
  EXPECT_EQ(y.to_vector(), expected.to_vector());

  EXPECT_EQ(evaluation_batch(data.train, 0, kImages, 8, kMean, kStd).rows(3, 7).to_vector(),
            y.to_vector());
  EXPECT_EQ(evaluation_batch(data.train, 5, 5, 8, kMean, kStd).numel(), 0);
  EXPECT_THROW(evaluation_batch(data.train, -1, 2, 8, kMean, kStd), Error);
  EXPECT_THROW(evaluation_batch(data.train, 2, 1, 8, kMean, kStd), Error);
  EXPECT_THROW(evaluation_batch(data.train, 0, kImages + 1, 8, kMean, kStd), Error);
}

}  // namespace
}  // namespace mocograd
