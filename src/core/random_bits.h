// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014): the same numbers
// from the same seed on every machine, which distributions of the standard library do not promise.
#pragma once

#include <cstdint>

namespace a2sf {

class RandomBits {
 public:
  explicit RandomBits(std::uint64_t seed) : state_(seed) {}

  std::uint64_t operator()() {
    std::uint64_t x = state_ += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
  }
  // Uniform in -1 to 1.
  double symmetric() { return static_cast<double>((*this)() >> 11) * 0x1p-52 - 1; }
  // Uniform in 0 to count - 1.
  std::uint32_t below(std::uint32_t count) {
    return static_cast<std::uint32_t>((((*this)() >> 32) * std::uint64_t{count}) >> 32);
  }

 private:
  std::uint64_t state_;
};

}  // namespace a2sf
