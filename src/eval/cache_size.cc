#include "eval/cache_size.h"

#include "cache/sequence_cache.h"
#include "policy/retention.h"

namespace a2sf {

Result<std::uint64_t> cache_bytes(const ModelInfo& info, const PolicySpec& policy, KvType type, std::int64_t tokens) {
  const auto resolved = resolve_all(policy, info.windows, info.kv_heads, tokens);
  if (!resolved) return tl::unexpected(resolved.error());
  std::uint64_t slots = 0;
  for (const SlotCount& bounded : resolved->bounded_slots) {
    slots += static_cast<std::uint64_t>(bounded.slots > 0 ? round_up(bounded.slots, kTile) : round_up(tokens, kChunk));
  }
  return slots * slot_bytes({info.layers, info.kv_heads, info.head_dim, type});
}

}  // namespace a2sf
