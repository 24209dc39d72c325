// ViewLoader: the batches of training, two augmented views of each image, made ahead of time.
//
// The order of an epoch is a random permutation keyed by (seed, epoch); what is left over at its
// end is dropped. Every number of a batch depends on (seed, epoch, sample, view) alone, so the
// number of workers changes nothing, and a run can begin at any step.
//
// For the CPU the workers draw the views and make them. For another device the images lie in its
// memory; the workers draw ahead, and the views are made there, all by one kernel, when a batch is
// taken.
#pragma once

#include <condition_variable>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "data/augmentation.h"
#include "data/dataset.h"

namespace mocograd {

struct ViewBatch {
  int64_t epoch = 0;          // from 1
  int64_t step_in_epoch = 0;  // from 0
  Tensor im_q, im_k;          // f32 [N, S, S, 3], row i of both from the same image
  Tensor indices;             // i64 [N], which images
};

class ViewLoader {
 public:
  // first_step: how many steps to skip, from the beginning of the first epoch.
  // The images are data.pretraining_images(). Throws where the batch exceeds them. `device` is where
  // the views will be used.
  ViewLoader(const DataSet& data, int64_t image_size, Augmentation augmentation, uint64_t seed,
             int64_t batch, int workers, int64_t first_step = 0, Device device = Device::cpu);
  ~ViewLoader();
  ViewLoader(const ViewLoader&) = delete;
  ViewLoader& operator=(const ViewLoader&) = delete;

  int64_t steps_per_epoch() const { return images_.dim(0) / batch_; }
  // Where the views are made: the CPU, too, where the images take too much of the device's memory.
  Device device() const { return images_.device(); }
  // The next batch, in order, epoch after epoch without end. Waits where it is not ready. An error
  // of a worker is thrown here.
  ViewBatch next();

 private:
  using Order = std::shared_ptr<const std::vector<int64_t>>;
  // A batch with the recipes of its views, which may not be made yet.
  struct Drawn {
    ViewBatch batch;
    std::vector<ViewRecipe> views;  // first those of im_q
  };

  void work();
  void stop();  // and waits for all workers
  // One, and another with every batch taken: the first steps, which the user waits for, do not share
  // the processors with batches that nobody needs yet.
  int64_t batches_ahead() const;
  Drawn draw(int64_t step);
  void make_views(Drawn& drawn) const;
  Order order_of(int64_t epoch);  // drawn when first asked for

  const Tensor images_;
  const int64_t image_size_, batch_;
  const ViewSettings settings_;
  const int64_t prefetched_;  // batches at most ahead of the consumer
  const int64_t first_step_;

  std::mutex order_mutex_;
  std::map<int64_t, Order> orders_;  // of the last two epochs: batches ahead may be of the next

  std::mutex mutex_;  // guards all below
  std::condition_variable made_, taken_;
  std::map<int64_t, Drawn> ready_;  // by step
  int64_t next_to_make_, next_to_take_;
  std::exception_ptr error_;
  bool stopping_ = false;
  std::vector<std::thread> workers_;
};

// The images in the device's memory where they take at most a quarter of it, since the network needs
// the most; else as they are. What else is there does not count: the views' last digits depend on
// where they are made, and a run that is resumed makes them where it did before.
// images: u8 [M, 3, H, W]
Tensor resident_images(const Tensor& images, Device device);
// Where that puts them: the device, or where they are.
Device home_of_images(const Tensor& images, Device device);

// View `view` of the images `samples` in epoch `epoch`: f32 [samples.size(), S, S, 3]. Made on the
// calling thread, or on the images' device.   images: u8 [M, 3, H, W], H and W those of the settings
Tensor training_batch(const Tensor& images, const ViewSettings& settings, int64_t epoch,
                      const std::vector<int64_t>& samples, int view, int64_t image_size);

// The evaluation views of images [begin, end), made on the device: f32 [end − begin, S, S, 3].
Tensor evaluation_batch(const ImageSet& images, int64_t begin, int64_t end, int64_t image_size,
                        const std::array<float, 3>& mean, const std::array<float, 3>& std,
                        Device device = Device::cpu);

}  // namespace mocograd
