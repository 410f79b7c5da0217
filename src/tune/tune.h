// Budgets for the KV heads of a model, measured on a text: the tables of a profile.
#pragma once

#include <a2sf/profile.h>

#include <optional>

#include "tune/damage.h"
#include "tune/memory_search.h"
#include "tune/text_cost.h"

namespace a2sf {

struct TuneOptions {
  PolicySpec policy;                                                       // by which tokens go; without its budget
  std::vector<std::int64_t> means = {8, 16, 32, 64, 128, 256, 512, 1024};  // mean budgets to make tables for, ascending
  std::size_t longest_window = 2048;                                       // tokens
  std::size_t windows = 2;                                                 // of the longest
  DamageMeasure measure = DamageMeasure::output;
  std::optional<MemorySearch> memories = {};  // for each mean, after its shares; none: alphas are the policy's own
  TextCost memory_cost = TextCost::divergence;
  double global_share = 1;    // of the heads of bounded layers; the others are local (hybrid.h)
  std::size_t long_term = 0;  // so many layers keep everything: those that a small budget hurts most
};

struct TunedBudgets {
  std::vector<ShareTable> tables;
  std::vector<LayerRange> bounded = {};  // layers; empty: all
};

// How long a window is in which a table for this mean is measured. A budget is of use in texts some times as long as
// it, and what a head needs there depends on how long they are.
std::size_t window_for(std::int64_t mean, std::size_t longest);
// Those windows.
TuneWindows windows_for(std::int64_t mean, std::span<const std::int32_t> tokens, const TuneOptions& options);

// One table for each mean below the length of its window; a mean that is not has none. The mean is that of bounded
// layers. Fails on a text that is shorter than a window, and where no layer would be bounded. `progress` counts tokens
// of all passes; a search for memories may end before its part is full.
Result<TunedBudgets> tune_budgets(const std::shared_ptr<const Model>& model, std::span<const std::int32_t> tokens,
                                  const TuneOptions& options, const TuneProgress& progress = {});

}  // namespace a2sf
