// The directions of keys, whose products are cosines. Keys are stored rotated: the same word far away has another
// direction, so similar keys are mostly near each other.
#pragma once

#include <a2sf/hook.h>

#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

namespace a2sf {

// Eight sums at a time, which compilers turn into vectors.
inline float dot(std::span<const float> a, std::span<const float> b) {
  constexpr std::size_t kSums = 8;
  float sums[kSums] = {};
  std::size_t i = 0;
  for (; i + kSums <= a.size(); i += kSums) {
    for (std::size_t s = 0; s < kSums; ++s) sums[s] += a[i + s] * b[i + s];
  }
  float sum = 0;
  for (const float part : sums) sum += part;
  for (; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// Keys of a head, each divided by its length; one of length 0 stays as it is.
class UnitKeys {
 public:
  void read(const HookHead& head, std::span<const int> slots) {
    dim_ = static_cast<std::size_t>(head.head_dim());
    data_.resize(slots.size() * dim_);
    for (std::size_t i = 0; i < slots.size(); ++i) {
      const std::span<float> key = std::span(data_).subspan(i * dim_, dim_);
      head.read_key(slots[i], key);
      const float length = std::sqrt(dot(key, key));
      for (float& x : key) x = length > 0 ? x / length : 0;
    }
  }
  std::span<const float> operator[](std::size_t i) const { return std::span(data_).subspan(i * dim_, dim_); }

 private:
  std::size_t dim_ = 0;
  std::vector<float> data_;  // [key][dim]
};

}  // namespace a2sf
