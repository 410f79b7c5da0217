// What tokens draw after a policy had to decide about them: the examples that a learned score is made of.
#pragma once

#include "policy/learned_model.h"
#include "tune/damage.h"

namespace a2sf {

// Of a layer: the tokens that could go, decision after decision, each of one KV head and row.
struct AttentionSamples {
  std::vector<Features> features;
  std::vector<float> drawn;       // the attention, summed over the group and the rows that follow
  std::vector<std::size_t> ends;  // of each decision
};

inline constexpr std::int64_t kDrawnRows = 128;     // how far a decision looks ahead
inline constexpr std::int64_t kDecisionBlock = 16;  // the policy evicts once in so many rows

// One for each layer. Tokens are evicted by a2sf with this budget in a shadow, so that the features are those of a
// bounded cache; the attention is the full cache's, which still has the tokens that went. Layers whose windows are no
// larger than the budget decide nothing.
Result<std::vector<AttentionSamples>> collect_samples(const std::shared_ptr<const Model>& model,
                                                      const TuneWindows& windows, std::int64_t budget,
                                                      const TuneProgress& progress);

}  // namespace a2sf
