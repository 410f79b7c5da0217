// What the cache of a sequence costs, before there is one.
#include <algorithm>

#include "engine/session_state.h"

namespace a2sf {
namespace {

std::uint64_t slots_for(const SlotPlans& plans, std::int64_t tokens) {
  std::uint64_t slots = 0;
  for (const SlotPlan& plan : plans) slots += static_cast<std::uint64_t>(plan.room_for(tokens));
  return slots;
}

// What is left of a prompt in a cache of its own.
std::uint64_t slots_for_budgets(const ResolvedRetention& resolved, std::int64_t tokens) {
  std::uint64_t slots = 0;
  for (std::size_t i = 0; i < resolved.bounded_slots.size(); ++i) {
    const std::int64_t kept = std::min(resolved.retention.rules[i].budget, tokens);
    slots += static_cast<std::uint64_t>(resolved.bounded_slots[i].room_for(kept));
  }
  return slots;
}

}  // namespace

Result<std::uint64_t> cache_cost(const ModelInfo& info, const SessionOptions& options, std::int64_t tokens) {
  return catch_bad_alloc([&]() -> Result<std::uint64_t> {
    const auto resolved =
        resolve_all(options.policy, info.windows, info.kv_heads, options.sequence_tokens, options.most_tokens);
    if (!resolved) return tl::unexpected(resolved.error());
    std::uint64_t slots = slots_for(resolved->slots, tokens);
    if (resolved->retention.whole_prompt)
      slots = std::max(slots + slots_for_budgets(*resolved, tokens), slots_for(resolved->bounded_slots, tokens));
    return slots * slot_bytes({info.layers, info.kv_heads, info.head_dim, options.kv_type});
  });
}

}  // namespace a2sf
