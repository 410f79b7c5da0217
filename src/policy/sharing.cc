#include "policy/sharing.h"

#include <algorithm>
#include <variant>

namespace a2sf {
namespace {

bool holds_all(const PolicySpec& spec, std::int64_t tokens) {
  const auto* count = std::get_if<BudgetCount>(&spec.budget.budget);
  return count != nullptr && tokens > 0 && count->tokens >= tokens;
}

}  // namespace

int bounded_layer(const PolicySpec& spec) { return spec.budget.layers.empty() ? 0 : spec.budget.layers.front().first; }

bool scores_decide(const PolicySpec& policy) {
  PolicySpec spec = policy;  // without a profile, whose first head may be local
  if (const auto* shares = std::get_if<BudgetShares>(&policy.budget.budget))
    std::visit([&](const auto& mean) { spec.budget.budget = mean; }, shares->mean);
  const auto rule = resolve(spec, bounded_layer(spec), 0, 0, spec.has_ratio() ? kAnyLength : 0, 0);
  return !rule || std::max(rule->sink, rule->pin) + rule->recent < rule->budget;
}

bool can_share(const PolicySpec& spec, std::int64_t tokens) {
  const bool has_mean = std::holds_alternative<BudgetCount>(spec.budget.budget) || spec.has_ratio();
  const bool is_by_score = std::holds_alternative<Accumulate>(spec.score) && scores_decide(spec);
  return has_mean && spec.profile() == nullptr && !holds_all(spec, tokens) && is_by_score;
}

}  // namespace a2sf
