#include "eval/cache_size.h"

#include <algorithm>

namespace a2sf {
namespace {

constexpr std::uint64_t kSlotMultiple = 16;
constexpr std::uint64_t kSlotFacts = 8;  // score and position

// A layer with a sliding window holds no more than that.
std::uint64_t bytes_of_slots(const ModelInfo& info, std::uint64_t slots, KvType type) {
  const auto padded = [](std::uint64_t count) { return (count + kSlotMultiple - 1) / kSlotMultiple * kSlotMultiple; };
  const std::uint64_t element = type == KvType::f16 ? 2 : 4;
  const std::uint64_t slot = 2 * padded(static_cast<std::uint64_t>(info.head_dim)) * element + kSlotFacts;
  std::uint64_t bytes = 0;
  for (const int window : info.windows) {
    const std::uint64_t held = window > 0 ? std::min(slots, static_cast<std::uint64_t>(window)) : slots;
    bytes += static_cast<std::uint64_t>(info.kv_heads) * padded(held) * slot;
  }
  return bytes;
}

}  // namespace

std::uint64_t bounded_cache_bytes(const ModelInfo& info, std::int64_t tokens, KvType type) {
  return bytes_of_slots(info, static_cast<std::uint64_t>(tokens) + 1, type);
}

std::uint64_t full_cache_bytes(const ModelInfo& info, std::int64_t tokens, KvType type) {
  return bytes_of_slots(info, static_cast<std::uint64_t>(tokens), type);
}

}  // namespace a2sf
