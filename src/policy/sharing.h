// Which policies a profile can share the budget out for.
#pragma once

#include <a2sf/policy.h>

#include <cstdint>

namespace a2sf {

// A length that a ratio can be taken of where only proportions matter.
inline constexpr std::int64_t kAnyLength = 1'000'000;

// A layer that the policy bounds: its first head stands for all where a model is not known yet.
int bounded_layer(const PolicySpec& spec);
// Whether a score, where there is one, decides anything: not where what must stay is all of the budget.
bool scores_decide(const PolicySpec& spec);
// Whether share_by() has something to do: the policy chooses by score, its budget is a count or a ratio that no profile
// shares out yet, and does not hold all of a sequence of so many tokens (0: not known).
bool can_share(const PolicySpec& spec, std::int64_t tokens);

}  // namespace a2sf
