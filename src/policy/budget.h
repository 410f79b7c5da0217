// What each head is asked to hold.
#pragma once

#include <a2sf/policy.h>

#include <string>
#include <vector>

namespace a2sf {

struct ShareTable;

// The first tokens that a local head keeps (ShareTable::local), where its budget has room for them and the newest one.
inline constexpr std::int64_t kLocalSinks = 4;

// A count as part of a spec; `least` is 0 or 1. An error names it.
Status check_count(const char* name, std::int64_t count, std::int64_t least);

// Whether the ranges, where there are any, include the layer.
bool includes(const std::vector<LayerRange>& ranges, int layer);

// A budget plan as whole tokens; windows come later. kKeepAll in layers that are not bounded.
class HeadBudgets {
 public:
  static Result<HeadBudgets> of(const PolicySpec& spec, std::int64_t sequence_tokens);

  Result<std::int64_t> of_head(int layer, int kv_head) const;
  // What the profile says for the head; AutoAlpha where there is none.
  Alpha profile_alpha(int layer, int kv_head) const;
  // Whether the profile says that the head is local.
  bool is_local(int layer, int kv_head) const;
  // Tables and ranges of layers are those of the model.
  Status check_shape(int layers, int kv_heads) const;

 private:
  std::string source_ = "budget table";
  std::int64_t count_ = 0;
  std::vector<std::vector<std::int64_t>> table_;  // empty: all heads have the count
  std::vector<LayerRange> layers_;
  const ShareTable* shares_ = nullptr;  // of the spec's profile
};

// What a sequence of this length makes of the spec's budget, of which its heads' budgets follow: the count that a count
// or a ratio comes to, the mean of shares; 0 of a table, and where nothing is bounded.
Result<std::int64_t> resolved_mean(const PolicySpec& spec, std::int64_t sequence_tokens);

// A head's rule at a budget that was asked for: an error if what must stay does not fit.
Result<HeadRule> fitting_rule(const PolicySpec& spec, std::int64_t budget);
// A head's rule at a budget, whether what must stay fits or not. `clamped`: sink gives way to the budget, recent to
// what pins and sinks leave of it.
HeadRule rule_at(const PolicySpec& spec, std::int64_t budget, bool clamped);

}  // namespace a2sf
