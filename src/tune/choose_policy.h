// Options of a score (power, value weight) by what they do: each policy with its own tuned tables.
#pragma once

#include "tune/tune.h"

namespace a2sf {

struct ChosenPolicy {
  std::size_t policy = 0;  // among those that were tried
  TunedBudgets budgets;
};

// Tunes every policy by itself, then takes the one whose predictions are nearest to the full cache's: of least KL in
// the windows of each table, in the geometric mean over the tables. The options' own policy plays no part.
Result<ChosenPolicy> choose_policy(const std::shared_ptr<const Model>& model, std::span<const std::int32_t> tokens,
                                   std::span<const PolicySpec> policies, const TuneOptions& options,
                                   const TuneProgress& progress = {});

}  // namespace a2sf
