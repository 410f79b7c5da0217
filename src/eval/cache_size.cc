#include "eval/cache_size.h"

#include <algorithm>

#include "policy/retention.h"

namespace a2sf {
namespace {

constexpr std::uint64_t kSlotFacts = 8;  // score and position

// The sum over the layers of what `slots_of(window)` says that one of its heads has.
template <class SlotsOf>
std::uint64_t bytes_of_slots(const ModelInfo& info, KvType type, SlotsOf slots_of) {
  const std::uint64_t element = type == KvType::f16 ? 2 : 4;
  const auto dim = static_cast<std::uint64_t>(round_up(info.head_dim, kTile));
  const std::uint64_t slot = 2 * dim * element + kSlotFacts;
  std::uint64_t bytes = 0;
  for (const int window : info.windows) {
    bytes += static_cast<std::uint64_t>(info.kv_heads) * static_cast<std::uint64_t>(round_up(slots_of(window), kTile)) *
             slot;
  }
  return bytes;
}

}  // namespace

std::uint64_t bounded_cache_bytes(const ModelInfo& info, std::int64_t tokens, KvType type) {
  return bytes_of_slots(info, type,
                        [&](std::int64_t window) { return 1 + (window > 0 ? std::min(tokens, window) : tokens); });
}

std::uint64_t full_cache_bytes(const ModelInfo& info, std::int64_t tokens, KvType type) {
  return bytes_of_slots(info, type, [&](std::int64_t window) { return window > 0 ? window + kWindowRows : tokens; });
}

}  // namespace a2sf
