// Hash64: a fast 64-bit fingerprint of bytes, the same on every machine of this byte order. It
// tells files and data sets apart; it does not protect against anybody who means to fool it.
//
//   h ← (h ⊕ word) · p;  h ← h ⊕ h >> 32        for each word of 8 bytes, little-endian, p odd
// The last word of a piece is filled with zeros, and the piece's length follows as a word.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

namespace mocograd {

class Hash64 {
 public:
  Hash64& add(const void* bytes, size_t count) {
    const char* next = static_cast<const char*>(bytes);
    for (size_t left = count; left > 0;) {
      const size_t taken = left < sizeof(uint64_t) ? left : sizeof(uint64_t);
      uint64_t word = 0;
      std::memcpy(&word, next, taken);
      mix(word);
      next += taken;
      left -= taken;
    }
    mix(count);
    return *this;
  }

  uint64_t value() const { return state_; }

  // Sixteen hexadecimal digits.
  std::string text() const {
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string digits(16, '0');
    for (int i = 0; i < 16; ++i) digits[15 - i] = kDigits[state_ >> 4 * i & 15];
    return digits;
  }

 private:
  void mix(uint64_t word) {
    state_ = (state_ ^ word) * 0x9E3779B97F4A7C15;  // 2^64 / golden ratio
    state_ ^= state_ >> 32;
  }

  uint64_t state_ = 0x243F6A8885A308D3;  // π
};

}  // namespace mocograd
