// The rule of what stays, as kernels use it, and the selection of victims: written once for all of them.
#pragma once

#include <a2sf/hook.h>
#include <a2sf/policy.h>
#include <a2sf/token_classes.h>

#include <algorithm>
#include <memory>
#include <span>
#include <vector>

#include "cache/sequence_cache.h"

namespace a2sf {

// A spec resolved for one sequence. Const while steps run.
struct Retention {
  bool whole_prompt = false;  // block = prompt, where any head evicts
  std::int64_t block = 1;
  int kv_heads = 0;
  std::vector<HeadRule> rules;  // [layer][kv head]
  std::shared_ptr<const HookFactory> hook;
  ColdTier cold = {};
  std::shared_ptr<const TokenClasses> classes = nullptr;  // of rules that have some

  const HeadRule& rule(int layer, int kv_head) const { return layer_rules(layer)[static_cast<std::size_t>(kv_head)]; }
  std::span<const HeadRule> layer_rules(int layer) const {
    return std::span(rules).subspan(static_cast<std::size_t>(layer * kv_heads), static_cast<std::size_t>(kv_heads));
  }
  // The most tokens that a head may hold after an eviction.
  std::int64_t capacity(const HeadRule& rule) const {
    return rule.mode == RetentionMode::hook ? hook->capacity(rule.budget) : rule.budget;
  }
};

// What never leaves a head.
inline std::int64_t must_stay(const HeadRule& rule) { return std::max(rule.sink, rule.pin) + rule.recent; }
// Whether rows of the head update its scores; if not, only a window takes tokens from it.
inline bool scores(const HeadRule& rule) {
  return rule.mode == RetentionMode::score || rule.mode == RetentionMode::hook;
}

// The positions that may be evicted after the token at `now`: neither sinks nor pinned nor recent.
struct Evictable {
  std::int64_t first, last;  // inclusive

  Evictable(const HeadRule& rule, std::int64_t now) : first(std::max(rule.sink, rule.pin)), last(now - rule.recent) {}
  bool operator()(std::int64_t position) const { return position >= first && position <= last; }
};

// The one order of victims: the lowest score first; of equal scores, the older token.
template <class Score>
bool goes_before(Score a, std::int32_t position_of_a, Score b, std::int32_t position_of_b) {
  return a != b ? a < b : position_of_a < position_of_b;
}

// What decides who goes: A, or A w (HeadRule::value_weight).
inline float decisive_score(const HeadCache& head, const HeadRule& rule, int slot) {
  return rule.value_weight ? head.score(slot) * head.number(slot, kValueWeight) : head.score(slot);
}

// What a slot knows of its token's class: two of its numbers, after the value's weight. They hold no alpha, which
// changes with the budget.
enum ClassNumber { kForgetting, kGain, kClassNumbers };  // 1 / memory, weight
inline int class_numbers(const HeadRule& rule) { return rule.value_weight ? kValueWeight + 1 : 0; }

inline void classify(HeadCache& head, const HeadRule& rule, int slot, const TokenClass& token_class) {
  head.number(slot, class_numbers(rule) + kForgetting) = static_cast<float>(1 / token_class.memory);
  head.number(slot, class_numbers(rule) + kGain) = static_cast<float>(token_class.weight);
}

// A <- alpha A + sum of one slot, where its token has a class.
inline double updated_score(const HeadCache& head, const HeadRule& rule, int slot, double sum) {
  if (!rule.classes) return rule.alpha * head.score(slot) + sum;
  const double forgetting = head.number(slot, class_numbers(rule) + kForgetting);
  const double alpha = std::max(0.0, 1 - (1 - rule.alpha) * forgetting);
  return alpha * head.score(slot) + head.number(slot, class_numbers(rule) + kGain) * sum;
}

// The slots that go, at most `count`, in the order in which they go.
// `victims` is the caller's, kept from call to call so that nothing is allocated in a steady state.
void select_victims(const HeadCache& head, const HeadRule& rule, std::int64_t now, std::int64_t count,
                    std::vector<int>& victims);

// Step 0 of a sliding-window layer: calls release(slot) for every token that the row at `now` has left behind.
template <class Release>
void free_expired(const HeadCache& head, int window, std::int64_t now, Release release) {
  for (int slot = 0; window > 0 && slot < head.used(); ++slot) {
    if (head.position(slot) >= 0 && head.position(slot) <= now - window) release(slot);
  }
}

// What an oracle row does not see: all earlier tokens but the `budget` ones of highest probability (summed over the
// group: sum_of(slot)); of equal ones the newer stay. `earlier`, the caller's memory as above, receives their slots.
template <class SumOf>
void hidden_from_ideal(const HeadCache& head, std::int64_t now, std::int64_t budget, SumOf sum_of,
                       std::vector<int>& earlier) {
  earlier.clear();
  for (int slot = 0; slot < head.used(); ++slot) {
    if (head.position(slot) >= 0 && head.position(slot) < now) earlier.push_back(slot);
  }
  const auto kept = earlier.begin() + std::min<std::ptrdiff_t>(std::ssize(earlier), budget);
  std::nth_element(earlier.begin(), kept, earlier.end(),
                   [&](int a, int b) { return goes_before(sum_of(b), head.position(b), sum_of(a), head.position(a)); });
  earlier.erase(earlier.begin(), kept);
}

// Where nothing is evicted, a layer with a sliding window has so many slots more, for rows that attend together.
inline constexpr int kWindowRows = 64;

// Resolves a spec for every head of a model, and the memory each head needs.
struct ResolvedRetention {
  Retention retention;
  SlotPlans slots;          // while rows run: unbounded where nothing is evicted yet
  SlotPlans bounded_slots;  // after the prompt under block = prompt
};
// `windows`: the sliding window of each layer, 0 where it has none. `most_tokens`: the sequence will never have more,
// 0: its length is not known.
Result<ResolvedRetention> resolve_all(const PolicySpec& spec, std::span<const int> windows, int kv_heads,
                                      std::int64_t sequence_tokens, std::int64_t most_tokens = 0);

}  // namespace a2sf
