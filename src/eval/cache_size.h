// What a cache costs, without loading a model.
#pragma once

#include <a2sf/session.h>

#include <cstdint>

namespace a2sf {

// What Session::kv_bytes() says after `tokens` tokens: slots that exist, in whole tiles and chunks, scores and padding
// included. `tokens` is also what a budget ratio is a ratio of. Fails where a session would.
Result<std::uint64_t> cache_bytes(const ModelInfo& info, const PolicySpec& policy, KvType type, std::int64_t tokens);

}  // namespace a2sf
