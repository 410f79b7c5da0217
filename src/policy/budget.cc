#include "policy/budget.h"

#include <a2sf/profile.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "policy/retention.h"

namespace a2sf {
namespace {

// The smallest budget that what must stay fits into, where it fits into `enough`.
std::int64_t least_budget(const PolicySpec& spec, std::int64_t enough) {
  std::int64_t least = 1;
  while (least < enough) {
    const std::int64_t wanted = must_stay(rule_at(spec, least, spec.has_ratio()));
    if (wanted <= least) break;
    least = wanted;
  }
  return std::min(least, enough);
}

Result<std::int64_t> tokens_of(const BudgetCount& count, std::int64_t) { return count.tokens; }

Result<std::int64_t> tokens_of(const BudgetRatio& budget, std::int64_t sequence_tokens) {
  if (!(budget.ratio > 0 && budget.ratio <= 1))
    return fail(ErrorKind::bad_input, fmt::format("budget ratio {} is not above 0 and up to 1", budget.ratio));
  if (sequence_tokens <= 0 || sequence_tokens > kKeepAll)
    return fail(ErrorKind::bad_input, "a budget ratio needs a sequence of known length; give a count of tokens");
  // A hair less, so that 0.2 of 100 is 20 although 0.2 is not exactly a fifth.
  return std::max<std::int64_t>(
      1, static_cast<std::int64_t>(std::ceil(budget.ratio * static_cast<double>(sequence_tokens) - 1e-9)));
}

Status check_ranges(const std::vector<LayerRange>& ranges) {
  for (const LayerRange& range : ranges) {
    if (range.first < 0 || range.last < range.first)
      return fail(ErrorKind::bad_input, fmt::format("layers {}-{} are no range", range.first, range.last));
  }
  return {};
}

}  // namespace

Status check_count(const char* name, std::int64_t count, std::int64_t least) {
  if (count >= least && count <= kKeepAll) return {};
  return fail(ErrorKind::bad_input,
              fmt::format("{} {} is not a number of tokens from {} to {}", name, count, least, kKeepAll));
}

bool includes(const std::vector<LayerRange>& ranges, int layer) {
  return ranges.empty() || std::any_of(ranges.begin(), ranges.end(), [&](const LayerRange& range) {
           return layer >= range.first && layer <= range.last;
         });
}

Result<std::int64_t> resolved_mean(const PolicySpec& spec, std::int64_t sequence_tokens) {
  if (spec.keeps_all()) return 0;
  const auto mean = [&](const auto& plan) -> Result<std::int64_t> {
    using Plan = std::decay_t<decltype(plan)>;
    if constexpr (std::is_same_v<Plan, BudgetTable>) {
      return 0;
    } else if constexpr (std::is_same_v<Plan, BudgetShares>) {
      return std::visit([&](const auto& any) { return tokens_of(any, sequence_tokens); }, plan.mean);
    } else {
      return tokens_of(plan, sequence_tokens);
    }
  };
  return std::visit(mean, spec.budget.budget);
}

Result<HeadBudgets> HeadBudgets::of(const PolicySpec& spec, std::int64_t sequence_tokens) {
  HeadBudgets budgets;
  if (auto valid = check_ranges(spec.budget.layers); !valid) return tl::unexpected(valid.error());
  budgets.layers_ = spec.budget.layers;
  const auto set = [&](const auto& plan) -> Status {
    using Plan = std::decay_t<decltype(plan)>;
    if constexpr (std::is_same_v<Plan, BudgetTable>) {
      if (plan.tokens.empty()) return fail(ErrorKind::bad_input, "the budget table is empty");
      budgets.table_ = plan.tokens;
    } else if constexpr (std::is_same_v<Plan, BudgetShares>) {
      const auto mean = std::visit([&](const auto& any) { return tokens_of(any, sequence_tokens); }, plan.mean);
      if (!mean) return tl::unexpected(mean.error());
      if (auto fits = fitting_rule(spec, *mean); !fits) return tl::unexpected(fits.error());
      if (plan.profile == nullptr) return fail(ErrorKind::bad_input, "there is no profile to share the budget out by");
      if (auto valid = validate(*plan.profile); !valid) return valid;
      budgets.source_ = plan.profile->file.empty() ? "profile" : "profile '" + plan.profile->file + "'";
      budgets.shares_ = &plan.profile->table_for(*mean);
      if (*mean == kKeepAll) {  // nothing to share out
        budgets.count_ = *mean;
      } else {
        budgets.table_ = share_out(*plan.profile, *mean, least_budget(spec, *mean), spec.budget.layers);
      }
    } else {
      const auto count = tokens_of(plan, sequence_tokens);
      if (!count) return tl::unexpected(count.error());
      budgets.count_ = *count;
    }
    return {};
  };
  if (auto done = std::visit(set, spec.budget.budget); !done) return tl::unexpected(done.error());
  return budgets;
}

Result<std::int64_t> HeadBudgets::of_head(int layer, int kv_head) const {
  if (!includes(layers_, layer)) return kKeepAll;
  if (table_.empty()) return count_;
  const auto l = static_cast<std::size_t>(layer), h = static_cast<std::size_t>(kv_head);
  if (l < table_.size() && h < table_[l].size()) return table_[l][h];
  return fail(ErrorKind::bad_input, fmt::format("there is no budget for layer {}, KV head {}", layer, kv_head));
}

Alpha HeadBudgets::profile_alpha(int layer, int kv_head) const {
  const auto l = static_cast<std::size_t>(layer), h = static_cast<std::size_t>(kv_head);
  if (shares_ != nullptr && !shares_->alphas.empty()) return shares_->alphas[l][h];
  if (shares_ != nullptr && !shares_->memories.empty()) return AutoAlpha{shares_->memories[l][h]};
  return AutoAlpha{};
}

bool HeadBudgets::is_local(int layer, int kv_head) const {
  if (shares_ == nullptr || shares_->local.empty()) return false;
  return shares_->local[static_cast<std::size_t>(layer)][static_cast<std::size_t>(kv_head)] == 1;
}

Status HeadBudgets::check_shape(int layers, int kv_heads) const {
  for (const LayerRange& range : layers_) {
    if (range.last < layers) continue;
    return fail(ErrorKind::bad_input,
                fmt::format("there is no layer {}: the model has layers 0 to {}", range.last, layers - 1));
  }
  const auto columns = static_cast<std::size_t>(kv_heads);
  const auto wrong = std::find_if(table_.begin(), table_.end(), [&](const auto& row) { return row.size() != columns; });
  if (table_.empty() || (std::ssize(table_) == layers && wrong == table_.end())) return {};
  return fail(ErrorKind::bad_input,
              fmt::format("the {} is for {} layers of {} KV heads, the model has {} of {}", source_, table_.size(),
                          wrong == table_.end() ? columns : wrong->size(), layers, kv_heads));
}

}  // namespace a2sf
