// A spec resolved: the rule of each head, and the slots it needs.
#include "policy/retention.h"

#include <a2sf/profile.h>
#include <a2sf/token_classes.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "policy/budget.h"

namespace a2sf {
namespace {

Status check_accumulation(const Accumulate& accumulate) {
  if (const auto* alpha = std::get_if<double>(&accumulate.alpha); alpha != nullptr && !(*alpha >= 0 && *alpha <= 1))
    return fail(ErrorKind::bad_input, fmt::format("alpha {} is outside [0, 1]", *alpha));
  if (const auto* automatic = std::get_if<AutoAlpha>(&accumulate.alpha);
      automatic != nullptr && !(automatic->memory >= 0 && std::isfinite(automatic->memory))) {
    return fail(ErrorKind::bad_input, fmt::format("memory {} is no number of budgets above 0", automatic->memory));
  }
  if (!(accumulate.threshold >= 0 && accumulate.threshold < 1))
    return fail(ErrorKind::bad_input, fmt::format("threshold {} is outside [0, 1)", accumulate.threshold));
  if (accumulate.power == 1 || accumulate.power == 1.5) return {};
  return fail(ErrorKind::bad_input, fmt::format("power {} is neither 1 nor 1.5", accumulate.power));
}

Status check_recent(const RecentTokens& recent) {
  if (const auto* count = std::get_if<std::int64_t>(&recent.size)) return check_count("recent", *count, 0);
  const double ratio = std::get<double>(recent.size);
  if (ratio >= 0 && ratio <= 1) return {};
  return fail(ErrorKind::bad_input, fmt::format("recent {} is no ratio of the budget; it must be from 0 to 1", ratio));
}

Status check_hook(const PolicySpec& spec, const Hooked& hooked) {
  if (hooked.factory == nullptr)
    return fail(ErrorKind::bad_input, fmt::format("policy '{}' is a hook without a factory", spec.name));
  if (auto complete = hooked.factory->check(nullptr); !complete) return complete;
  return check_needs(hooked.factory->needs());
}

// Of a hook there are none: its numbers beside a token are its own.
const TokenClasses* classes_of(const PolicySpec& spec) {
  const auto* accumulate = std::get_if<Accumulate>(&spec.score);
  return accumulate == nullptr ? nullptr : accumulate->classes.get();
}

Status check_classes(const PolicySpec& spec) {
  const TokenClasses* classes = classes_of(spec);
  if (classes == nullptr) return {};
  if (classes->classes.empty()) {
    return fail(ErrorKind::bad_input, fmt::format("'{}' needs token classes: add :classes=FILE, made by a2sf tune "
                                                  "--classes TEXT",
                                                  spec.name));
  }
  if (spec.has_cold_tier())
    return fail(ErrorKind::bad_input, "token classes and a cold tier do not go together; leave out classes or cold");
  return validate(*classes);
}

// Everything but the budget.
Status check_options(const PolicySpec& spec) {
  if (auto valid = check_count("block", spec.block(), 1); !valid) return valid;
  if (auto valid = check_count("pin", spec.keep.pin, 0); !valid) return valid;
  if (auto valid = check_count("sink", spec.keep.sink.tokens, 0); !valid) return valid;
  if (auto valid = check_count("cold", spec.cold.tokens, 0); !valid) return valid;
  if (auto valid = check_count("recall", spec.cold.recall, 1); !valid) return valid;
  if (auto valid = check_recent(spec.keep.recent); !valid) return valid;
  if (const auto* hooked = std::get_if<Hooked>(&spec.score)) {
    if (auto valid = check_hook(spec, *hooked); !valid) return valid;
  }
  if (auto valid = check_classes(spec); !valid) return valid;
  const Accumulate* accumulate = spec.accumulates();
  if (spec.has_cold_tier() && accumulate->threshold > 0)
    return fail(ErrorKind::bad_input, "a threshold and a cold tier do not go together; leave out threshold or cold");
  return accumulate == nullptr ? Status() : check_accumulation(*accumulate);
}

RetentionMode mode_of(const ScoreRule& score) {
  if (std::holds_alternative<NoScore>(score)) return RetentionMode::all;
  if (std::holds_alternative<Oracle>(score)) return RetentionMode::oracle;
  return std::holds_alternative<Hooked>(score) ? RetentionMode::hook : RetentionMode::score;
}

bool asks_profile_for_alpha(const PolicySpec& spec) {
  const Accumulate* accumulate = spec.accumulates();
  return accumulate != nullptr && std::holds_alternative<ProfileAlpha>(accumulate->alpha);
}

double alpha_at(const Alpha& alpha, double power, std::int64_t budget) {
  if (const auto* number = std::get_if<double>(&alpha)) return *number;
  const auto* automatic = std::get_if<AutoAlpha>(&alpha);
  const double standard = power == 1 ? 1.5 : 2;
  const double memory = automatic != nullptr && automatic->memory > 0 ? automatic->memory : standard;
  return std::max(0.0, 1 - 1 / (memory * static_cast<double>(budget)));
}

// Whether values are weighed, as tokens have classes: in heads that keep everything too, which a resize may bound.
bool weighs_values(const PolicySpec& spec) {
  const auto* accumulate = std::get_if<Accumulate>(&spec.score);
  return accumulate != nullptr && accumulate->value_weight;
}

// What a head does that evicts nothing; a window leaves tokens behind all the same.
HeadRule rule_of_all(const PolicySpec& spec, std::int64_t window) {
  return {.budget = window > 0 ? window : kKeepAll,
          .value_weight = weighs_values(spec),
          .classes = classes_of(spec) != nullptr};
}

// What the hook's layer_budget makes of a planned budget.
std::int64_t shifted_budget(const PolicySpec& spec, std::int64_t planned, int layer, int layers) {
  const auto* hooked = std::get_if<Hooked>(&spec.score);
  return hooked == nullptr || layers == 0 ? planned : hooked->factory->layer_budget(planned, layer, layers);
}

// What a local head of a profile keeps: ShareTable::local.
void make_local(HeadRule& rule) {
  rule.sink = std::max(rule.sink, std::min(kLocalSinks, rule.budget - 1));
  rule.recent = std::max<std::int64_t>(0, rule.budget - std::max(rule.sink, rule.pin));
}

Result<HeadRule> resolve_head(const PolicySpec& spec, const HeadBudgets& budgets, int layer, int layers, int kv_head,
                              std::int64_t window) {
  const auto planned = budgets.of_head(layer, kv_head);
  if (!planned) return tl::unexpected(planned.error());
  if (*planned == kKeepAll && !spec.is_oracle()) return rule_of_all(spec, window);
  const std::int64_t budget = shifted_budget(spec, *planned, layer, layers);
  // A window is no excuse for what does not fit the budget that was asked for.
  auto rule = fitting_rule(spec, budget);
  if (!rule && budget != *planned) {
    const std::string name = layer == layers - 1 ? "the last layer" : fmt::format("layer {}", layer);
    return fail(rule.error().kind, fmt::format("of the budget {} '{}' gives {} to {}: {}", *planned, spec.name, budget,
                                               name, rule.error().message));
  }
  if (!rule) return rule;
  // Within a window tokens leave with it and only so: what must stay does as long as anything does, however much it is.
  if (window > 0 && window <= budget) rule = rule_at(spec, window, true);
  if (asks_profile_for_alpha(spec))
    rule->alpha = alpha_at(budgets.profile_alpha(layer, kv_head), rule->power, rule->budget);
  if (!spec.is_oracle() && budgets.is_local(layer, kv_head)) make_local(*rule);
  return rule;
}

// The slots a head needs while rows run.
Result<SlotPlan> slots_of(const Retention& retention, const HeadRule& rule, int window) {
  if (rule.mode == RetentionMode::all || rule.mode == RetentionMode::oracle)
    return window > 0 ? SlotPlan::ring(std::int64_t{window} + kWindowRows) : SlotPlan();
  if (rule.mode == RetentionMode::score) return SlotPlan::bounded(rule.budget + retention.block);
  const std::int64_t capacity = retention.capacity(rule);
  if (capacity >= std::max<std::int64_t>(1, must_stay(rule)) && capacity < kKeepAll)
    return SlotPlan::bounded(capacity + retention.block);
  if (capacity >= 1 && capacity < kKeepAll) {
    return fail(ErrorKind::bad_input, fmt::format("hook '{}' has a capacity of {} tokens, fewer than the {} that stay",
                                                  retention.hook->name(), capacity, must_stay(rule)));
  }
  return fail(ErrorKind::bad_input, fmt::format("hook '{}' has a capacity of {} tokens, not 1 to {}",
                                                retention.hook->name(), capacity, kKeepAll - 1));
}

// In a prompt under block = prompt nothing goes but what a window leaves behind.
SlotPlan slots_of_prompt(const SlotPlan& slots, int window) {
  if (slots.kind == SlotPlan::Kind::ring) return slots;
  return window > 0 ? SlotPlan::bounded(window) : SlotPlan();
}

}  // namespace

Status check_needs(const HookNeeds& needs) {
  constexpr int kMostRows = 1024, kMostNumbers = 16;
  if (needs.last_rows < 0 || needs.last_rows > kMostRows)
    return fail(ErrorKind::bad_input, fmt::format("{} last rows are not 0 to {}", needs.last_rows, kMostRows));
  if (needs.numbers >= 0 && needs.numbers <= kMostNumbers) return {};
  return fail(ErrorKind::bad_input, fmt::format("{} numbers per token are not 0 to {}", needs.numbers, kMostNumbers));
}

HeadRule rule_at(const PolicySpec& spec, std::int64_t budget, bool clamped) {
  const KeepRule& keep = spec.keep;
  HeadRule rule{.budget = budget, .pin = keep.pin, .mode = mode_of(spec.score)};
  if (const Accumulate* accumulate = spec.accumulates()) {
    rule.alpha = alpha_at(accumulate->alpha, accumulate->power, budget);
    rule.power = accumulate->power;
    rule.value_weight = weighs_values(spec);
    rule.threshold = rule.mode == RetentionMode::score ? accumulate->threshold : 0;
    rule.classes = classes_of(spec) != nullptr;
  }
  rule.sink = keep.sink.yields ? std::min(keep.sink.tokens, budget - 1) : keep.sink.tokens;
  const auto* count = std::get_if<std::int64_t>(&keep.recent.size);
  rule.recent =
      count != nullptr
          ? *count
          : static_cast<std::int64_t>(std::get<double>(keep.recent.size) * static_cast<double>(budget) + 1e-9);
  if (clamped) rule.sink = std::min(rule.sink, budget);
  if (clamped || keep.recent.yields)
    rule.recent = std::clamp<std::int64_t>(budget - std::max(rule.sink, rule.pin), 0, rule.recent);
  return rule;
}

Result<HeadRule> fitting_rule(const PolicySpec& spec, std::int64_t budget) {
  if (auto valid = check_count("budget", budget, 1); !valid) return tl::unexpected(valid.error());
  const HeadRule rule = rule_at(spec, budget, spec.has_ratio());
  if (rule.value_weight && rule.sink < 1)
    return fail(ErrorKind::bad_input, "value-weight needs a sink of at least 1: the first token's weight is 0");
  if (must_stay(rule) <= budget) return rule;
  return fail(
      ErrorKind::bad_input,
      fmt::format("budget {} is smaller than what must stay: {} first tokens (sink {}, pin {}) and {} recent ones",
                  budget, std::max(rule.sink, rule.pin), rule.sink, rule.pin, rule.recent));
}

Result<HeadRule> resolve(const PolicySpec& spec, int layer, int layers, int kv_head, std::int64_t sequence_tokens,
                         std::int64_t window) {
  if (auto valid = check_options(spec); !valid) return tl::unexpected(valid.error());
  if (spec.keeps_all()) return rule_of_all(spec, window);
  const auto budgets = HeadBudgets::of(spec, sequence_tokens);
  if (!budgets) return tl::unexpected(budgets.error());
  return resolve_head(spec, *budgets, layer, layers, kv_head, window);
}

Result<ResolvedRetention> resolve_all(const PolicySpec& spec, std::span<const int> windows, int kv_heads,
                                      std::int64_t sequence_tokens, std::int64_t most_tokens) {
  const int layers = static_cast<int>(windows.size());
  if (auto valid = check_options(spec); !valid) return tl::unexpected(valid.error());
  const auto budgets = spec.keeps_all() ? Result<HeadBudgets>() : HeadBudgets::of(spec, sequence_tokens);
  if (!budgets) return tl::unexpected(budgets.error());
  if (auto fits = budgets->check_shape(layers, kv_heads); !fits) return tl::unexpected(fits.error());
  ResolvedRetention resolved;
  Retention& retention = resolved.retention;
  retention.kv_heads = kv_heads;
  retention.block = spec.block();
  if (const auto* hooked = std::get_if<Hooked>(&spec.score)) retention.hook = hooked->factory;
  if (spec.has_cold_tier()) retention.cold = spec.cold;
  if (classes_of(spec) != nullptr) retention.classes = std::get<Accumulate>(spec.score).classes;
  for (int layer = 0; layer < layers; ++layer) {
    const int window = windows[static_cast<std::size_t>(layer)];
    for (int kv_head = 0; kv_head < kv_heads; ++kv_head) {
      const auto rule = spec.keeps_all() ? Result<HeadRule>(rule_of_all(spec, window))
                                         : resolve_head(spec, *budgets, layer, layers, kv_head, window);
      if (!rule) return tl::unexpected(rule.error());
      const auto slots = slots_of(retention, *rule, window);
      if (!slots) return tl::unexpected(slots.error());
      retention.rules.push_back(*rule);
      retention.whole_prompt = retention.whole_prompt || (spec.evicts_at_prompt_end() && scores(*rule));
      const auto plan = [&](const SlotPlan& any) { return most_tokens > 0 ? any.within(most_tokens) : any; };
      resolved.bounded_slots.push_back(plan(*slots));
      resolved.slots.push_back(plan(spec.evicts_at_prompt_end() ? slots_of_prompt(*slots, window) : *slots));
    }
  }
  return resolved;
}

}  // namespace a2sf
