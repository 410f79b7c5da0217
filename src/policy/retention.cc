#include "policy/retention.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace a2sf {
namespace {

Result<std::int64_t> resolve_budget(const Budget& budget, int layer, int kv_head, std::int64_t sequence_tokens) {
  if (!budget.table.empty()) {
    const auto l = static_cast<std::size_t>(layer), h = static_cast<std::size_t>(kv_head);
    if (l >= budget.table.size() || h >= budget.table[l].size()) {
      return fail(ErrorKind::bad_input,
                  fmt::format("the budget table has no entry for layer {}, KV head {}", layer, kv_head));
    }
    return budget.table[l][h];
  }
  if (!(budget.ratio >= 0 && budget.ratio <= 1)) {
    return fail(ErrorKind::bad_input,
                fmt::format("budget ratio {} is not above 0 and up to 1 (or 0, for a count of tokens)", budget.ratio));
  }
  if (budget.ratio == 0) return budget.count;
  if (sequence_tokens <= 0) {
    return fail(ErrorKind::bad_input, "a budget ratio needs a sequence of known length; give a count of tokens");
  }
  // A hair less, so that 0.2 of 100 is 20 although 0.2 is not exactly a fifth.
  return std::max<std::int64_t>(
      1, static_cast<std::int64_t>(std::ceil(budget.ratio * static_cast<double>(sequence_tokens) - 1e-9)));
}

// Counts that the policy itself implies.
struct Defaults {
  double alpha;
  std::int64_t sink, recent;
};

Defaults defaults_of(Policy policy, std::int64_t budget) {
  const double auto_alpha = std::max(0.0, 1 - 1 / (1.5 * static_cast<double>(budget)));
  switch (policy) {
    case Policy::local:
      return {0, 0, budget};
    case Policy::streaming:
      return {0, std::min<std::int64_t>(4, budget - 1), budget - std::min<std::int64_t>(4, budget - 1)};
    case Policy::h2o:
      return {1, 0, budget / 2};
    case Policy::a2sf:
    case Policy::hook:
      return {auto_alpha, 0, budget / 2};
    case Policy::full:
    case Policy::tova:
    case Policy::ideal:
      break;
  }
  return {0, 0, 0};
}

RetentionMode mode_of(Policy policy) {
  if (policy == Policy::full) return RetentionMode::all;
  if (policy == Policy::ideal) return RetentionMode::ideal;
  return policy == Policy::hook ? RetentionMode::hook : RetentionMode::score;
}

}  // namespace

std::vector<int> select_victims(const HeadCache& head, const Evictable& evictable, std::int64_t count) {
  std::vector<int> slots;
  for (int slot = 0; slot < head.used; ++slot) {
    if (evictable(head.position(slot))) slots.push_back(slot);
  }
  std::sort(slots.begin(), slots.end(), [&](int a, int b) {
    return head.score(a) != head.score(b) ? head.score(a) < head.score(b) : head.position(a) < head.position(b);
  });
  slots.resize(std::min(slots.size(), static_cast<std::size_t>(std::max<std::int64_t>(count, 0))));
  return slots;
}

Result<HeadRule> resolve(const PolicySpec& spec, int layer, int kv_head, std::int64_t sequence_tokens,
                         std::int64_t window) {
  if (spec.policy == Policy::full) {
    return HeadRule{window > 0 ? window : std::numeric_limits<std::int32_t>::max(), 0, 0, 0};
  }
  auto budget = resolve_budget(spec.budget, layer, kv_head, sequence_tokens);
  if (!budget) return tl::unexpected(budget.error());
  if (*budget < 1)
    return fail(ErrorKind::bad_input, fmt::format("budget {} is too small; it must be at least 1", *budget));
  const bool within_window = window > 0 && window <= *budget;
  if (within_window) {
    // A window is no excuse for what does not fit the budget that was asked for.
    if (auto asked = resolve(spec, layer, kv_head, sequence_tokens, 0); !asked) return asked;
    budget = window;
  }
  // No sequence is longer; sums of counts cannot overflow.
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
  const std::int64_t counts[] = {*budget, spec.block, spec.pin, spec.sink.value_or(0),
                                 spec.recent ? spec.recent->count : 0};
  for (const std::int64_t count : counts) {
    if (count > most)
      return fail(ErrorKind::bad_input, fmt::format("{} tokens are more than a sequence can have: {}", count, most));
  }
  if (spec.alpha && !(*spec.alpha >= 0 && *spec.alpha <= 1)) {
    return fail(ErrorKind::bad_input, fmt::format("alpha {} is outside [0, 1]", *spec.alpha));
  }
  if (spec.recent && !(spec.recent->ratio >= 0 && spec.recent->ratio <= 1)) {
    return fail(ErrorKind::bad_input,
                fmt::format("recent {} is no ratio of the budget; it must be from 0 to 1", spec.recent->ratio));
  }
  const Defaults defaults = defaults_of(spec.policy, *budget);
  HeadRule rule{*budget, spec.alpha.value_or(defaults.alpha), spec.sink.value_or(defaults.sink), defaults.recent};
  if (spec.recent) {
    rule.recent = spec.recent->ratio > 0
                      ? static_cast<std::int64_t>(spec.recent->ratio * static_cast<double>(*budget) + 1e-9)
                      : spec.recent->count;
  } else {
    // The policy's own recent window gives way to sinks and pins that were asked for.
    rule.recent =
        std::clamp<std::int64_t>(rule.recent, 0, std::max<std::int64_t>(0, *budget - std::max(rule.sink, spec.pin)));
  }
  if (spec.budget.ratio > 0 || within_window) {
    rule.sink = std::min(rule.sink, *budget);
    rule.recent = std::min(rule.recent, *budget - rule.sink);
  }
  // Within a window tokens leave with it and only so: what must stay does as long as anything does, however much it is.
  const bool fits = within_window || std::max(rule.sink, spec.pin) + rule.recent <= *budget;
  if (rule.sink < 0 || rule.recent < 0 || !fits) {
    return fail(
        ErrorKind::bad_input,
        fmt::format("budget {} is smaller than what must stay: {} first tokens (sink {}, pin {}) and {} recent ones",
                    *budget, std::max(rule.sink, spec.pin), rule.sink, spec.pin, rule.recent));
  }
  return rule;
}

Result<ResolvedRetention> resolve_all(const PolicySpec& spec, std::span<const int> windows, int kv_heads,
                                      std::int64_t sequence_tokens) {
  const std::size_t layers = windows.size();
  if (spec.policy == Policy::hook && (!spec.hook || spec.block != 1 || spec.whole_prompt)) {
    return fail(ErrorKind::bad_input, "a hook policy needs a hook, and decides after every token: block must be 1");
  }
  if (!spec.budget.table.empty() && spec.budget.table.size() != layers) {
    return fail(ErrorKind::bad_input,
                fmt::format("the budget table has {} layers, the model {}", spec.budget.table.size(), layers));
  }
  if (spec.block < 1)
    return fail(ErrorKind::bad_input, fmt::format("block {} is too small; it must be at least 1", spec.block));
  ResolvedRetention resolved;
  Retention& retention = resolved.retention;
  retention.mode = mode_of(spec.policy);
  retention.whole_prompt = spec.whole_prompt && retention.mode == RetentionMode::score;
  retention.block = spec.block;
  retention.pin = spec.pin;
  retention.kv_heads = kv_heads;
  retention.hook = spec.hook;
  const bool grows = retention.mode == RetentionMode::all || retention.mode == RetentionMode::ideal;
  for (std::size_t layer = 0; layer < layers; ++layer) {
    for (int kv_head = 0; kv_head < kv_heads; ++kv_head) {
      const auto rule = resolve(spec, static_cast<int>(layer), kv_head, sequence_tokens, windows[layer]);
      if (!rule) return tl::unexpected(rule.error());
      const std::int64_t kept =
          retention.mode == RetentionMode::hook ? spec.hook->capacity(rule->budget) : rule->budget;
      const SlotCount slots = !grows               ? kept + spec.block
                              : windows[layer] > 0 ? SlotCount(windows[layer] + kWindowRows, true)
                                                   : 0;
      retention.rules.push_back(*rule);
      resolved.bounded_slots.push_back(slots);
      resolved.slots.push_back(retention.whole_prompt ? SlotCount(0) : slots);
    }
  }
  return resolved;
}

}  // namespace a2sf
