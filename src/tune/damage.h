// What a budget costs each KV head: measured on a text, at a ladder of budgets, with the hidden states of the full
// cache.
#pragma once

#include <a2sf/session.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

namespace a2sf {

// Work done and to do, in tokens; false cancels.
using TuneProgress = std::function<bool(std::size_t done, std::size_t total)>;

// [layer][kv head][rung], at least 0: of no unit, comparable between heads.
using DamageTable = std::vector<std::vector<std::vector<double>>>;

// How the damage of a head is measured.
enum class DamageMeasure {
  output,      // what its output loses (measure_output_damage)
  divergence,  // what the predictions lose where it alone is bounded (head_divergence.h); slow
  lost_mass    // the attention that goes to tokens it has evicted (lost_mass.h)
};

struct DamageLadder {
  std::vector<std::int64_t> budgets;  // the rungs, ascending
  std::int64_t length = 0;            // tokens of a window of the text: a budget of so many costs nothing
  DamageTable damage;
};

// The windows of a text: `count` of `length` tokens each, spread evenly over it.
struct TuneWindows {
  std::span<const std::int32_t> tokens;
  std::size_t length, count;

  std::span<const std::int32_t> window(std::size_t i) const;
};

// The policy with an equal budget in all heads.
PolicySpec with_budget(PolicySpec spec, std::int64_t budget);

// The damage of a head's output: the mean over rows of |W_o (output under the budget - output of the full cache)|^2
// / |x|^2, where x is what the layer reads and W_o are the columns of the output projection that belong to the head's
// group. Every head evicts by `spec` with the rung as its budget, in a shadow of a full cache: what other heads and
// layers lose plays no part.
Result<DamageLadder> measure_output_damage(const std::shared_ptr<const Model>& model, const TuneWindows& windows,
                                           const PolicySpec& spec, std::span<const std::int64_t> budgets,
                                           const TuneProgress& progress);

}  // namespace a2sf
