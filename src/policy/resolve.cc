#include "policy/retention.h"

#include <a2sf/profile.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <vector>

namespace a2sf {
namespace {

// No sequence is longer; sums of counts cannot overflow.
constexpr std::int64_t kMostTokens = std::numeric_limits<std::int32_t>::max();

Status check_count(const char* name, std::int64_t count, std::int64_t least) {
  if (count >= least && count <= kMostTokens) return {};
  return fail(ErrorKind::bad_input,
              fmt::format("{} {} is not a number of tokens from {} to {}", name, count, least, kMostTokens));
}

// Everything but the budget, which may be a count, a ratio or a table.
Status check_options(const PolicySpec& spec) {
  if (auto valid = check_count("block", spec.block, 1); !valid) return valid;
  if (auto valid = check_count("pin", spec.pin, 0); !valid) return valid;
  if (auto valid = check_count("sink", spec.sink.value_or(0), 0); !valid) return valid;
  if (auto valid = check_count("recent", spec.recent ? spec.recent->count : 0, 0); !valid) return valid;
  if (spec.alpha && !(*spec.alpha >= 0 && *spec.alpha <= 1)) {
    return fail(ErrorKind::bad_input, fmt::format("alpha {} is outside [0, 1]", *spec.alpha));
  }
  if (spec.recent && !(spec.recent->ratio >= 0 && spec.recent->ratio <= 1)) {
    return fail(ErrorKind::bad_input,
                fmt::format("recent {} is no ratio of the budget; it must be from 0 to 1", spec.recent->ratio));
  }
  return {};
}

// A budget that is no table as a count of tokens.
Result<std::int64_t> count_of(const Budget& budget, std::int64_t sequence_tokens) {
  if (!(budget.ratio >= 0 && budget.ratio <= 1)) {
    return fail(ErrorKind::bad_input,
                fmt::format("budget ratio {} is not above 0 and up to 1 (or 0, for a count of tokens)", budget.ratio));
  }
  if (budget.ratio == 0) return budget.count;
  if (sequence_tokens <= 0 || sequence_tokens > kMostTokens) {
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

// A head's rule at a budget, whether what must stay fits or not. `clamped`: sink gives way to the budget, recent to
// what pins and sinks leave of it.
HeadRule rule_at(const PolicySpec& spec, std::int64_t budget, bool clamped) {
  const Defaults defaults = defaults_of(spec.policy, budget);
  HeadRule rule{budget, spec.alpha.value_or(defaults.alpha), spec.sink.value_or(defaults.sink), defaults.recent};
  if (!spec.recent) {
    // The policy's own recent window gives way to sinks and pins that were asked for.
    const std::int64_t rest = std::max<std::int64_t>(0, budget - std::max(rule.sink, spec.pin));
    rule.recent = std::clamp<std::int64_t>(rule.recent, 0, rest);
  } else if (spec.recent->ratio > 0) {
    rule.recent = static_cast<std::int64_t>(spec.recent->ratio * static_cast<double>(budget) + 1e-9);
  } else {
    rule.recent = spec.recent->count;
  }
  if (clamped) {
    rule.sink = std::min(rule.sink, budget);
    rule.recent = std::clamp<std::int64_t>(budget - std::max(rule.sink, spec.pin), 0, rule.recent);
  }
  return rule;
}

std::int64_t must_stay(const HeadRule& rule, std::int64_t pin) { return std::max(rule.sink, pin) + rule.recent; }

// The rule at a budget that was asked for.
Result<HeadRule> fitting_rule(const PolicySpec& spec, std::int64_t budget) {
  if (auto valid = check_count("budget", budget, 1); !valid) return tl::unexpected(valid.error());
  const HeadRule rule = rule_at(spec, budget, spec.budget.ratio > 0);
  if (must_stay(rule, spec.pin) <= budget) return rule;
  return fail(
      ErrorKind::bad_input,
      fmt::format("budget {} is smaller than what must stay: {} first tokens (sink {}, pin {}) and {} recent ones",
                  budget, std::max(rule.sink, spec.pin), rule.sink, spec.pin, rule.recent));
}

// The smallest budget that what must stay fits into, where it fits into `enough`.
std::int64_t least_budget(const PolicySpec& spec, std::int64_t enough) {
  std::int64_t least = 1;
  while (least < enough) {
    const std::int64_t wanted = must_stay(rule_at(spec, least, spec.budget.ratio > 0), spec.pin);
    if (wanted <= least) break;
    least = wanted;
  }
  return std::min(least, enough);
}

// What each head is asked to hold; windows come later.
class HeadBudgets {
 public:
  static Result<HeadBudgets> of(const PolicySpec& spec, std::int64_t sequence_tokens) {
    HeadBudgets budgets;
    budgets.table_ = spec.budget.table;
    if (!budgets.table_.empty()) {
      if (!spec.profile) return budgets;
      return fail(ErrorKind::bad_input, "a profile shares out a budget that is a count or a ratio, not a table");
    }
    const auto count = count_of(spec.budget, sequence_tokens);
    if (!count) return tl::unexpected(count.error());
    budgets.count_ = *count;
    if (!spec.profile) return budgets;
    if (auto mean = fitting_rule(spec, *count); !mean) return tl::unexpected(mean.error());
    if (auto valid = validate(*spec.profile); !valid) return tl::unexpected(valid.error());
    budgets.source_ = spec.profile->file.empty() ? "profile" : "profile '" + spec.profile->file + "'";
    budgets.table_ = share_out(*spec.profile, *count, least_budget(spec, *count));
    return budgets;
  }

  Result<std::int64_t> of_head(int layer, int kv_head) const {
    if (table_.empty()) return count_;
    const auto l = static_cast<std::size_t>(layer), h = static_cast<std::size_t>(kv_head);
    if (l < table_.size() && h < table_[l].size()) return table_[l][h];
    return fail(ErrorKind::bad_input, fmt::format("there is no budget for layer {}, KV head {}", layer, kv_head));
  }

  // A table has one entry for each head of the model.
  Status check_shape(std::size_t layers, int kv_heads) const {
    const auto columns = static_cast<std::size_t>(kv_heads);
    const auto wrong =
        std::find_if(table_.begin(), table_.end(), [&](const auto& row) { return row.size() != columns; });
    if (table_.empty() || (table_.size() == layers && wrong == table_.end())) return {};
    return fail(ErrorKind::bad_input,
                fmt::format("the {} is for {} layers of {} KV heads, the model has {} of {}", source_, table_.size(),
                            wrong == table_.end() ? columns : wrong->size(), layers, kv_heads));
  }

 private:
  std::string source_ = "budget table";
  std::int64_t count_ = 0;
  std::vector<std::vector<std::int64_t>> table_;  // empty: all heads have the count
};

// The profile's alpha, where it takes the place of one that would depend on the budget.
std::optional<double> measured_alpha(const PolicySpec& spec, int layer, int kv_head) {
  const bool adapts = spec.policy == Policy::a2sf || spec.policy == Policy::hook;
  if (!adapts || spec.alpha || spec.auto_alpha || !spec.profile || spec.profile->alphas.empty()) return std::nullopt;
  return spec.profile->alphas[static_cast<std::size_t>(layer)][static_cast<std::size_t>(kv_head)];
}

Result<HeadRule> resolve_head(const PolicySpec& spec, const HeadBudgets& budgets, int layer, int kv_head,
                              std::int64_t window) {
  const auto budget = budgets.of_head(layer, kv_head);
  if (!budget) return tl::unexpected(budget.error());
  // A window is no excuse for what does not fit the budget that was asked for.
  auto rule = fitting_rule(spec, *budget);
  if (!rule) return rule;
  // Within a window tokens leave with it and only so: what must stay does as long as anything does, however much it is.
  if (window > 0 && window <= *budget) rule = rule_at(spec, window, true);
  rule->alpha = measured_alpha(spec, layer, kv_head).value_or(rule->alpha);
  return rule;
}

HeadRule rule_of_full(std::int64_t window) { return {window > 0 ? window : kMostTokens, 0, 0, 0}; }

// The slots a head needs while rows run.
Result<SlotPlan> slots_of(const Retention& retention, const HeadRule& rule, int window) {
  if (retention.mode == RetentionMode::all || retention.mode == RetentionMode::ideal)
    return window > 0 ? SlotPlan::ring(std::int64_t{window} + kWindowRows) : SlotPlan();
  if (retention.mode != RetentionMode::hook) return SlotPlan::bounded(rule.budget + retention.block);
  const std::int64_t capacity = retention.hook->capacity(rule.budget);
  if (capacity >= 1 && capacity <= kMostTokens) return SlotPlan::bounded(capacity + retention.block);
  return fail(ErrorKind::bad_input, fmt::format("hook '{}' has a capacity of {} tokens, not 1 to {}",
                                                retention.hook->name(), capacity, kMostTokens));
}

// In a prompt under block = prompt nothing goes but what a window leaves behind.
SlotPlan slots_of_prompt(int window) { return window > 0 ? SlotPlan::bounded(window) : SlotPlan(); }

}  // namespace

Result<HeadRule> resolve(const PolicySpec& spec, int layer, int kv_head, std::int64_t sequence_tokens,
                         std::int64_t window) {
  if (auto valid = check_options(spec); !valid) return tl::unexpected(valid.error());
  if (spec.policy == Policy::full) return rule_of_full(window);
  const auto budgets = HeadBudgets::of(spec, sequence_tokens);
  if (!budgets) return tl::unexpected(budgets.error());
  return resolve_head(spec, *budgets, layer, kv_head, window);
}

Result<ResolvedRetention> resolve_all(const PolicySpec& spec, std::span<const int> windows, int kv_heads,
                                      std::int64_t sequence_tokens, std::int64_t most_tokens) {
  const std::size_t layers = windows.size();
  if (spec.policy == Policy::hook && (!spec.hook || spec.block != 1 || spec.whole_prompt)) {
    return fail(ErrorKind::bad_input, "a hook policy needs a hook, and decides after every token: block must be 1");
  }
  if (auto valid = check_options(spec); !valid) return tl::unexpected(valid.error());
  const bool is_full = spec.policy == Policy::full;
  const auto budgets = is_full ? Result<HeadBudgets>() : HeadBudgets::of(spec, sequence_tokens);
  if (!budgets) return tl::unexpected(budgets.error());
  if (auto fits = budgets->check_shape(layers, kv_heads); !fits) return tl::unexpected(fits.error());
  ResolvedRetention resolved;
  Retention& retention = resolved.retention;
  retention.mode = mode_of(spec.policy);
  retention.whole_prompt = spec.whole_prompt && retention.mode == RetentionMode::score;
  retention.block = spec.block;
  retention.pin = spec.pin;
  retention.kv_heads = kv_heads;
  retention.hook = spec.hook;
  for (std::size_t layer = 0; layer < layers; ++layer) {
    for (int kv_head = 0; kv_head < kv_heads; ++kv_head) {
      const auto rule = is_full ? Result<HeadRule>(rule_of_full(windows[layer]))
                                : resolve_head(spec, *budgets, static_cast<int>(layer), kv_head, windows[layer]);
      if (!rule) return tl::unexpected(rule.error());
      const auto slots = slots_of(retention, *rule, windows[layer]);
      if (!slots) return tl::unexpected(slots.error());
      retention.rules.push_back(*rule);
      const auto plan = [&](const SlotPlan& any) { return most_tokens > 0 ? any.within(most_tokens) : any; };
      resolved.bounded_slots.push_back(plan(*slots));
      resolved.slots.push_back(plan(retention.whole_prompt ? slots_of_prompt(windows[layer]) : *slots));
    }
  }
  return resolved;
}

}  // namespace a2sf
