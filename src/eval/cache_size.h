// What a cache costs, without loading a model.
#pragma once

#include <a2sf/session.h>

#include <cstdint>

namespace a2sf {

// Bytes of a cache of `tokens` per layer and KV head, one slot for the newest token and padding included.
std::uint64_t bounded_cache_bytes(const ModelInfo& info, std::int64_t tokens, KvType type);
// Bytes of a cache that keeps all `tokens`: in a layer with a sliding window those in it, beside slots to work with.
std::uint64_t full_cache_bytes(const ModelInfo& info, std::int64_t tokens, KvType type);

}  // namespace a2sf
