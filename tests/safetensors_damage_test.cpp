// Damaged safetensors files: each loads or is refused with an Error, whatever was done to it.
#include <cstring>

#include "safetensors_files.h"

namespace mocograd {
namespace {

constexpr int kMutants = 100'000;

class DamagedSafetensors : public SafetensorsTest {
 protected:
  DamagedSafetensors() {
    NamedTensors written;
    written.tensors["conv1.weight"] = random_bytes({2, 3}, DType::f32, 0);
    written.tensors["fc.bias"] = random_bytes({3}, DType::f64, 1);
    written.tensors["queue_ptr"] = random_bytes({}, DType::i64, 2);
    written.tensors["none"] = random_bytes({0, 4}, DType::u8, 3);
    written.metadata = {{"step", "12"}, {"config.lr", "0.06"}};
    write_safetensors(path(), written);
    valid_ = contents();
  }

  // True if it loads. Anything thrown that is no Error fails the test by itself.
  bool loads(const std::string& bytes) const {
    const std::string error = error_of(bytes);
    if (error == "(no error)") return true;
    EXPECT_EQ(error.rfind(path() + ": ", 0), 0u) << error;
    return false;
  }

  std::string valid_;
};

TEST_F(DamagedSafetensors, EveryPrefixIsRefused) {
  ASSERT_TRUE(loads(valid_));
  for (size_t length = 0; length < valid_.size(); ++length)
    EXPECT_FALSE(loads(valid_.substr(0, length))) << length;
}

// Replaces one run of digits in the header by a number that a reader may trip on.
void edit_number(std::string& bytes, RandomStream& random) {
  static const char* const kNumbers[] = {
      "0", "-1", "1e3", "7.5", "4294967296", "9223372036854775807", "18446744073709551615"};
  const size_t from = 8 + random.below(static_cast<uint32_t>(bytes.size() - 8));
  const size_t begin = bytes.find_first_of("0123456789", from);
  if (begin == std::string::npos) return;
  const size_t end = std::min(bytes.find_first_not_of("0123456789", begin), bytes.size());
  const size_t before = bytes.size();
  bytes.replace(begin, end - begin, kNumbers[random.below(std::size(kNumbers))]);
  // The length is set right, or this would be all that the reader sees.
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  bytes.replace(0, 8, little_endian(length + bytes.size() - before));
}

TEST_F(DamagedSafetensors, MutantsLoadOrAreRefused) {
  RandomStream random(0, Purpose::test);
  int loaded = 0;
  for (int mutant = 0; mutant < kMutants; ++mutant) {
    std::string bytes = valid_;
    for (uint32_t edit = 0; edit <= random.below(3); ++edit) {
      const size_t at = random.below(static_cast<uint32_t>(bytes.size()));
      const char byte = static_cast<char>(random.below(256));
      switch (random.below(4)) {
        case 0:
          bytes[at] = static_cast<char>(bytes[at] ^ (1 << random.below(8)));
          break;
        case 1:
          bytes.insert(at, 1 + random.below(9), byte);
          break;
        case 2:
          bytes.erase(at, 1 + random.below(9));
          break;
        default:
          edit_number(bytes, random);
      }
    }
    loaded += loads(bytes);
  }
  // Flips in the data and in names do load; the rest does not.
  EXPECT_GT(loaded, kMutants / 100);
  EXPECT_LT(loaded, kMutants / 2);
}

}  // namespace
}  // namespace mocograd
