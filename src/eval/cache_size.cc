#include "eval/cache_size.h"

namespace a2sf {
namespace {

constexpr std::uint64_t kSlotMultiple = 16;
constexpr std::uint64_t kSlotFacts = 9;  // score, position and the pinned bit

std::uint64_t bytes_of_slots(const ModelInfo& info, std::uint64_t slots, KvType type) {
  const std::uint64_t padded = (slots + kSlotMultiple - 1) / kSlotMultiple * kSlotMultiple;
  const std::uint64_t element = type == KvType::f16 ? 2 : 4;
  const std::uint64_t slot = 2 * static_cast<std::uint64_t>(info.head_dim) * element + kSlotFacts;
  return static_cast<std::uint64_t>(info.layers) * static_cast<std::uint64_t>(info.kv_heads) * padded * slot;
}

}  // namespace

std::uint64_t bounded_cache_bytes(const ModelInfo& info, std::int64_t tokens, KvType type) {
  return bytes_of_slots(info, static_cast<std::uint64_t>(tokens) + 1, type);
}

std::uint64_t full_cache_bytes(const ModelInfo& info, std::int64_t tokens, KvType type) {
  return bytes_of_slots(info, static_cast<std::uint64_t>(tokens), type);
}

}  // namespace a2sf
