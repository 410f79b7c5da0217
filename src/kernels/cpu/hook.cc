// What a hook sees of a layer, and what is done with the victims it names.
#include <fmt/format.h>

#include <algorithm>
#include <new>

#include "kernels/cpu/attend.h"

namespace a2sf::cpu {
namespace {

// Copies, slot by slot: hooks may be slower, and see plain arrays whatever the layout of the cache.
struct HeadCopy {
  std::vector<std::int32_t> positions;
  std::vector<float> scores, probabilities, queries, keys, values;

  HeadCopy(const HeadCache& head, RowsInFlight& flight, int group, int head_dim) {
    const auto slots = static_cast<std::size_t>(head.used()), dim = static_cast<std::size_t>(head_dim);
    keys.resize(slots * dim);
    values.resize(slots * dim);
    for (std::size_t slot = 0; slot < slots; ++slot) {
      positions.push_back(std::max(-1, head.position(static_cast<int>(slot))));
      scores.push_back(head.score(static_cast<int>(slot)));
      head.read_key(static_cast<int>(slot), std::span(keys).subspan(slot * dim, dim));
      head.read_value(static_cast<int>(slot), std::span(values).subspan(slot * dim, dim));
    }
    probabilities.resize(static_cast<std::size_t>(group) * slots);
    for (int g = 0; g < group; ++g) {
      flight.read_probabilities(0, g, std::span(probabilities).subspan(static_cast<std::size_t>(g) * slots, slots));
      queries.insert(queries.end(), flight.query(0, g), flight.query(0, g) + head_dim);
    }
  }
  HookHead view(std::int64_t budget) const { return {positions, scores, probabilities, queries, keys, values, budget}; }
};

}  // namespace

Status Attention::call_hook(const AttendArgs& args, const Span& span, int row) try {
  LayerHook& hook = *span.retention->hook;
  const std::int64_t now = span.first_position + row;
  std::vector<HeadCopy> copies;
  std::vector<HookHead> views;
  copies.reserve(static_cast<std::size_t>(args.kv_heads));
  for (int h = 0; h < args.kv_heads; ++h) {
    copies.emplace_back(span.cache->head(args.layer, h), flights_[static_cast<std::size_t>(h)],
                        args.heads / args.kv_heads, args.head_dim);
    views.push_back(copies.back().view(span.retention->rule(args.layer, h).budget));
  }
  std::vector<Victim> victims;
  hook.evict({args.layer, now, span.token_ids.first(static_cast<std::size_t>(now) + 1), views}, victims);
  for (const Victim& victim : victims) {
    const bool exists = victim.kv_head >= 0 && victim.kv_head < args.kv_heads && victim.slot >= 0 &&
                        victim.slot < span.cache->head(args.layer, victim.kv_head).used() &&
                        span.cache->head(args.layer, victim.kv_head).position(victim.slot) >= 0;
    if (!exists) {
      return fail(ErrorKind::bad_input,
                  fmt::format("hook '{}' named a victim that is not there: layer {}, KV head {}, slot {}", hook.name(),
                              args.layer, victim.kv_head, victim.slot));
    }
    release(args, span, now, victim.kv_head, victim.slot);
  }
  for (int h = 0; h < args.kv_heads; ++h) {
    const HeadCache& head = span.cache->head(args.layer, h);
    if (head.occupied() <= hook.capacity(span.retention->rule(args.layer, h).budget)) continue;
    return fail(ErrorKind::bad_input,
                fmt::format("hook '{}' left {} tokens in layer {}, KV head {}: more than its capacity", hook.name(),
                            head.occupied(), args.layer, h));
  }
  return {};
} catch (const std::bad_alloc&) {
  return fail(ErrorKind::out_of_memory, "out of memory in a hook");
}

}  // namespace a2sf::cpu
