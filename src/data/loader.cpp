#include "data/loader.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "tensor/backend.h"
#include "tensor/random.h"

namespace mocograd {
namespace {

Tensor views_of(const Tensor& images, const std::vector<ViewRecipe>& views, int64_t image_size) {
  const Tensor y = Tensor::empty({static_cast<int64_t>(views.size()), image_size, image_size, 3},
                                 {.device = images.device()});
  y.backend().augment(images, views.data(), y);
  return y;
}

std::vector<ViewRecipe> recipes_of(const ViewSettings& settings, int64_t epoch,
                                   const std::vector<int64_t>& samples, int view) {
  std::vector<ViewRecipe> views;
  for (const int64_t sample : samples) views.push_back(sample_view(settings, epoch, sample, view));
  return views;
}

}  // namespace

ViewLoader::ViewLoader(const DataSet& data, int64_t image_size, Augmentation augmentation,
                       uint64_t seed, int64_t batch, int workers, int64_t first_step, Device device)
    : images_(resident_images(data.pretraining_images(), device)),
      image_size_(image_size),
      batch_(batch),
      settings_{augmentation, seed, images_.dim(2), images_.dim(3), data.mean, data.std},
      prefetched_(workers + 2),
      first_step_(first_step),
      next_to_make_(first_step),
      next_to_take_(first_step) {
  MOCO_CHECK(batch >= 1 && batch <= images_.dim(0), "loader: a batch of ", batch, " from ",
             images_.dim(0), " training images");
  MOCO_CHECK(workers >= 1 && first_step >= 0, "loader: ", workers, " workers from step ",
             first_step);
  try {
    for (int i = 0; i < workers; ++i) workers_.emplace_back([this] { work(); });
  } catch (const std::system_error& error) {
    stop();
    throw Error(detail::concatenate("loader: cannot start ", workers,
                                    " threads: ", error.code().message()));
  } catch (...) {
    stop();
    throw;
  }
}

ViewLoader::~ViewLoader() {
  stop();
}

void ViewLoader::stop() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  taken_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

ViewBatch ViewLoader::next() {
  std::unique_lock<std::mutex> lock(mutex_);
  made_.wait(lock, [this] { return error_ || ready_.contains(next_to_take_); });
  if (error_) std::rethrow_exception(error_);
  Drawn drawn = std::move(ready_.extract(next_to_take_).mapped());
  ++next_to_take_;
  lock.unlock();
  taken_.notify_all();
  if (device() != Device::cpu) make_views(drawn);
  return drawn.batch;
}

int64_t ViewLoader::batches_ahead() const {
  return std::clamp<int64_t>(next_to_take_ - first_step_, 1, prefetched_);
}

void ViewLoader::work() {
  for (;;) {
    int64_t step = 0;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      taken_.wait(lock, [this] {
        return stopping_ || (!error_ && next_to_make_ < next_to_take_ + batches_ahead());
      });
      if (stopping_) return;
      step = next_to_make_++;
    }
    try {
      Drawn drawn = draw(step);
      if (device() == Device::cpu) make_views(drawn);
      const std::lock_guard<std::mutex> lock(mutex_);
      ready_.emplace(step, std::move(drawn));
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex_);
      error_ = std::current_exception();
    }
    made_.notify_all();
  }
}

ViewLoader::Order ViewLoader::order_of(int64_t epoch) {
  const std::lock_guard<std::mutex> lock(order_mutex_);
  Order& order = orders_[epoch];
  if (!order) {
    RandomStream random(settings_.seed, Purpose::epoch_order, static_cast<uint32_t>(epoch));
    order =
        std::make_shared<const std::vector<int64_t>>(random_permutation(images_.dim(0), random));
  }
  const Order result = order;
  while (orders_.size() > 2) orders_.erase(orders_.begin());
  return result;
}

ViewLoader::Drawn ViewLoader::draw(int64_t step) {
  const int64_t epoch = step / steps_per_epoch() + 1, step_in_epoch = step % steps_per_epoch();
  const Order order = order_of(epoch);
  const auto begin = order->begin() + step_in_epoch * batch_;
  const std::vector<int64_t> samples(begin, begin + batch_);
  const Tensor indices =
      Tensor::from({samples.begin(), samples.end()}, {batch_}, {.dtype = DType::i64});
  std::vector<ViewRecipe> views = recipes_of(settings_, epoch, samples, 0);
  const std::vector<ViewRecipe> of_keys = recipes_of(settings_, epoch, samples, 1);
  views.insert(views.end(), of_keys.begin(), of_keys.end());
  return {{epoch, step_in_epoch, {}, {}, indices}, std::move(views)};
}

void ViewLoader::make_views(Drawn& drawn) const {
  const Tensor views = views_of(images_, drawn.views, image_size_);
  drawn.batch.im_q = views.rows(0, batch_);
  drawn.batch.im_k = views.rows(batch_, 2 * batch_);
}

Device home_of_images(const Tensor& images, Device device) {
  const bool fits = images.bytes() <= backend_of(device).total_memory() / 4;
  return fits ? device : images.device();
}

Tensor resident_images(const Tensor& images, Device device) {
  return images.to(home_of_images(images, device));
}

Tensor training_batch(const Tensor& images, const ViewSettings& settings, int64_t epoch,
                      const std::vector<int64_t>& samples, int view, int64_t image_size) {
  return views_of(images, recipes_of(settings, epoch, samples, view), image_size);
}

Tensor evaluation_batch(const ImageSet& images, int64_t begin, int64_t end, int64_t image_size,
                        const std::array<float, 3>& mean, const std::array<float, 3>& std,
                        Device device) {
  MOCO_CHECK(0 <= begin && begin <= end && end <= images.size(), "evaluation_batch: [", begin, ", ",
             end, ") of ", images.size(), " images");
  const ViewSettings settings{Augmentation::none,   0,    images.images.dim(2),
                              images.images.dim(3), mean, std};
  std::vector<ViewRecipe> views;
  for (int64_t i = begin; i < end; ++i) views.push_back(evaluation_view(settings, i - begin));
  return views_of(images.images.rows(begin, end).to(device), views, image_size);
}

}  // namespace mocograd
