// What the cache of a sequence costs, before there is one.
#include <fmt/format.h>

#include <algorithm>

#include "engine/session_state.h"
#include "kernels/host/host_store.h"

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
    const Retention& retention = resolved.retention;
    const std::int64_t kept = std::min(retention.capacity(retention.rules[i]), tokens);
    slots += static_cast<std::uint64_t>(resolved.bounded_slots[i].room_for(kept));
  }
  return slots;
}

// The cold tier of a sequence of so many tokens.
std::uint64_t cold_cost(const SequenceShape& shape, const Retention& retention, std::int64_t tokens) {
  if (retention.cold.tokens == 0) return 0;
  const CacheShape cold = cache_shape(shape, retention);
  const SlotPlans plans = cold_plans(shape, retention);
  std::uint64_t slots = 0;
  for (std::size_t i = 0; i < plans.size(); ++i) {
    const HeadRule& rule = retention.rules[i];
    if (rule.mode == RetentionMode::score && tokens > rule.budget)
      slots += static_cast<std::uint64_t>(plans[i].room_for(tokens - rule.budget));
  }
  return slots * slot_bytes(cold);
}

}  // namespace

Result<std::uint64_t> cache_cost(const ModelInfo& info, const SessionOptions& options, std::int64_t tokens) {
  return catch_bad_alloc([&]() -> Result<std::uint64_t> {
    if (tokens < 0 || tokens > kKeepAll)
      return fail(ErrorKind::bad_input, fmt::format("no sequence has {} tokens", tokens));
    const auto resolved = resolve_for(info, options);
    if (!resolved) return tl::unexpected(resolved.error());
    const SequenceShape shape = sequence_shape(info, 0, options.kv_type);
    const CacheShape cache = cache_shape(shape, resolved->retention);
    std::uint64_t slots = slots_for(resolved->slots, tokens);
    const std::uint64_t caches = resolved->retention.whole_prompt ? 2 : 1;  // at once
    if (resolved->retention.whole_prompt)
      slots = std::max(slots + slots_for_budgets(*resolved, tokens), slots_for(resolved->bounded_slots, tokens));
    const auto& hook = resolved->retention.hook;
    const std::uint64_t queries = hook == nullptr ? 0 : QueryHistory::bytes_for(shape, hook->needs().last_rows);
    if (slots == 0) return 0;
    return slots * slot_bytes(cache) + caches * fixed_bytes(cache) + queries +
           cold_cost(shape, resolved->retention, tokens);
  });
}

}  // namespace a2sf
