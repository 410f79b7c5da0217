// What a budget costs each KV head, measured on the predictions themselves: slow, but it assumes nothing.
#pragma once

#include "tune/damage.h"

namespace a2sf {

// How many sequences read the windows: for progress.
std::size_t head_divergence_readings(const Model& model, std::size_t budgets);

// The damage of a head is the KL of the predictions to those of the full cache, in nats, where that head alone evicts,
// by `spec` with the rung as its budget. Rounding moves predictions as well, by about as much as the least KL of all;
// that is taken off.
Result<DamageLadder> measure_head_divergence(const std::shared_ptr<const Model>& model, const TuneWindows& windows,
                                             const PolicySpec& spec, std::span<const std::int64_t> budgets,
                                             const TuneProgress& progress);

}  // namespace a2sf
