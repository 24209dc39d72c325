// The monitor and the accuracy of nearest neighbours.
#include "moco/knn.h"

#include <gtest/gtest.h>

#include <cmath>

#include "moco/checkpoint.h"
#include "tiny_step.h"

namespace mocograd {
namespace {

// A tiny data set of random pictures.
DataSet random_pictures() {
  DataSet data;
  for (int split = 0; split < 2; ++split) {
    RandomStream random(1, Purpose::test, 5, static_cast<uint32_t>(split));
    ImageSet set{Tensor::empty({12, 3, 8, 8}, {.dtype = DType::u8}),
                 indices({0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2})};
    for (int64_t i = 0; i < set.images.numel(); ++i)
      set.images.data<uint8_t>()[i] = static_cast<uint8_t>(random.below(256));
    (split == 0 ? data.train : data.test.emplace()) = set;
  }
  data.classes = {"a", "b", "c"};
  data.mean = {0.5f, 0.5f, 0.5f};
  data.std = {0.2f, 0.2f, 0.2f};
  return data;
}

TEST(Knn, TheMonitorChangesNothing) {
  Moco moco(tiny_config({.dtype = DType::f32}), 0);
  Sgd optimizer(moco.encoder_q(), {});
  const DataSet data = random_pictures();
  const StateDict before = checkpoint_state(moco, &optimizer);
  const double top1 = knn_monitor(moco.encoder_q(), data, 8);
  EXPECT_GE(top1, 0);
  EXPECT_LE(top1, 100);
  const StateDict after = checkpoint_state(moco, &optimizer);
  for (const auto& [name, tensor] : before)
    EXPECT_EQ(tensor.to_vector(), after.at(name).to_vector()) << name;
  EXPECT_TRUE(moco.encoder_q().training());
}

TEST(Knn, WeightsThatAreNotFiniteAreAnError) {
  Moco moco(tiny_config({.dtype = DType::f32}), 0);
  for (const NamedParameter& parameter : moco.encoder_q().named_parameters()) {
    if (parameter.name == "fc.weight") parameter.variable->data().fill(std::nan(""));
  }
  EXPECT_THROW(knn_monitor(moco.encoder_q(), random_pictures(), 8), Error);
}

TEST(Knn, VotesAreWeightedBySimilarity) {
  // Bank along the axes; the query is nearest to class 1, but class 0 has two votes.
  const Tensor bank = Tensor::from({1, 0, 0, 1, 0, 1}, {3, 2});
  const Tensor query = Tensor::from({0.8, 0.6}, {1, 2});
  const Tensor labels = indices({1, 0, 0}), expected = indices({1});
  EXPECT_EQ(knn_accuracy(bank, labels, query, expected, 2, {.k = 1, .temperature = 0.1}), 100);
  // exp(0.8/T) against 2·exp(0.6/T): class 1 wins for T below 0.2/ln 2 = 0.2885.
  EXPECT_EQ(knn_accuracy(bank, labels, query, expected, 2, {.k = 3, .temperature = 0.28}), 100);
  EXPECT_EQ(knn_accuracy(bank, labels, query, expected, 2, {.k = 3, .temperature = 0.30}), 0);
  EXPECT_EQ(knn_accuracy(bank, labels, query, expected, 2, {.k = 200, .temperature = 0.28}), 100);
}

// However cold: exp(s/T) itself would overflow, and leave the classes equal.
TEST(Knn, AColdVoteIsTheNearestNeighbours) {
  const Tensor bank = Tensor::from({1, 0, 0, 1, 0, 1}, {3, 2});
  const Tensor query = Tensor::from({0.8, 0.6}, {1, 2});
  for (const double temperature : {1e-3, 1e-5, 1e-300})
    EXPECT_EQ(knn_accuracy(bank, indices({1, 0, 0}), query, indices({1}), 2,
                           {.k = 3, .temperature = temperature}),
              100)
        << temperature;
}

TEST(Knn, RefusesWhatDoesNotFit) {
  const Tensor bank = Tensor::zeros({3, 2}), query = Tensor::zeros({1, 2});
  const Tensor labels = indices({1, 0, 0});
  EXPECT_THROW(knn_accuracy(bank, labels, query, indices({1}), 2, {.k = 0}), Error);
  EXPECT_THROW(knn_accuracy(bank, indices({1, 0, 2}), query, indices({1}), 2), Error);
  EXPECT_THROW(knn_accuracy(bank, indices({1, 0, -1}), query, indices({1}), 2), Error);
  EXPECT_THROW(knn_accuracy(bank, indices({1, 0}), query, indices({1}), 2), Error);
  EXPECT_THROW(knn_accuracy(bank, labels, query, indices({1, 0}), 2), Error);
  EXPECT_THROW(nearest_neighbors(bank, query, 4), Error);
}

TEST(Knn, CountsBeyondOneBatch) {
  // 256 of class 0 and 44 of class 1, each on the axis of its class.
  const Tensor bank = Tensor::from({1, 0, 0, 1}, {2, 2}), features = Tensor::zeros({300, 2});
  const Tensor labels = Tensor::zeros({300}, {.dtype = DType::i64});
  for (int64_t i = 0; i < 300; ++i) {
    labels.data<int64_t>()[i] = i >= 256;
    features.data<float>()[2 * i + (i >= 256)] = 1;
  }
  EXPECT_EQ(knn_accuracy(bank, indices({0, 1}), features, labels, 2, {.k = 1}), 100);
}

}  // namespace
}  // namespace mocograd
