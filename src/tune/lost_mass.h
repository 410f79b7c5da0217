// What a budget costs each KV head, measured by the attention that its evicted tokens would have had: the usual proxy.
#pragma once

#include "tune/damage.h"

namespace a2sf {

// The damage of a head is the mean over rows of the share of its attention, summed over the group, that the full cache
// gives to tokens which the head has evicted, by `spec` with the rung as its budget.
Result<DamageLadder> measure_lost_mass(const std::shared_ptr<const Model>& model, const TuneWindows& windows,
                                       const PolicySpec& spec, std::span<const std::int64_t> budgets,
                                       const TuneProgress& progress);

}  // namespace a2sf
