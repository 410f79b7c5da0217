#include "cache/cold_store.h"

#include <algorithm>
#include <tuple>

namespace a2sf {

void ColdHead::take(const HeadCache& from, int slot) const {
  if (tokens->is_full()) {
    int least = -1;
    const auto value = [&](int s) { return std::tuple(recalls(*tokens, s), tokens->position(s)); };
    for (int s = 0; s < tokens->used(); ++s) {
      if (tokens->position(s) >= 0 && (least < 0 || value(s) < value(least))) least = s;
    }
    tokens->release(least);
  }
  tokens->insert_copy(from, slot);
}

ColdStore::ColdStore(Memory& memory, CacheShape shape, int group, const SlotPlans& plans)
    : memory_(&memory), group_(group) {
  shape.weighs_values = false;  // each token's weight comes with it
  cache_ = SequenceCache(memory, shape, plans);
}

std::size_t ColdStore::recent_floats() const {
  const auto queries = static_cast<std::size_t>(kRecentRows * group_);
  return queries * (1 + static_cast<std::size_t>(round_up(cache_.shape().head_dim, kTile)));
}

std::size_t recent_bytes(const CacheShape& shape, int group) {
  const auto queries = static_cast<std::size_t>(shape.layers * shape.kv_heads * kRecentRows * group);
  return sizeof(float) * queries * (1 + static_cast<std::size_t>(round_up(shape.head_dim, kTile)));
}

ColdHead ColdStore::head(int layer, int kv_head) {
  const auto dim = static_cast<int>(round_up(cache_.shape().head_dim, kTile));
  auto* const queries = reinterpret_cast<float*>(recent_.data()) +
                        static_cast<std::size_t>(layer * cache_.shape().kv_heads + kv_head) * recent_floats();
  return {&cache_.head(layer, kv_head), {queries, queries + std::ptrdiff_t{kRecentRows} * group_ * dim, group_, dim}};
}

Status ColdStore::take_recent() {
  if (recent_.bytes() > 0) return {};
  auto buffer = OwnedBuffer::create(*memory_, recent_bytes(cache_.shape(), group_));
  if (!buffer) return tl::unexpected(buffer.error());
  recent_ = std::move(*buffer);
  return {};
}

Status ColdStore::make_room(std::span<const std::int64_t> tokens) {
  if (auto taken = take_recent(); !taken) return taken;
  return cache_.make_room(tokens);
}

Result<ColdStore> ColdStore::clone() const {
  ColdStore copy;
  copy.memory_ = memory_;
  copy.group_ = group_;
  auto cache = cache_.clone();
  if (!cache) return tl::unexpected(cache.error());
  copy.cache_ = std::move(*cache);
  if (recent_.bytes() == 0) return copy;
  if (auto taken = copy.take_recent(); !taken) return tl::unexpected(taken.error());
  memory_->copy(copy.recent_.data(), recent_.data(), recent_.bytes());
  return copy;
}

}  // namespace a2sf
