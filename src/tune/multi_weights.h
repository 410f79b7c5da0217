// The weights of the policy multi's measures: found by trying them on a text.
#pragma once

#include "tune/damage.h"

#include <string>

namespace a2sf {

struct MultiOptions {
  std::int64_t budget = 128;
  std::size_t calls = 40;  // weights that the search tries, at most
};

struct WeightedLoss {
  std::string name;  // of weights
  double loss;       // of the text, nats per token
};

struct MultiWeights {
  PolicySpec spec;  // with the weights of least loss
  double loss;
  // For comparison: the standard weights, then those that were found without each measure that has one.
  std::vector<WeightedLoss> others;
};

// By the subplex method, from the standard weights on and no worse than they are. Attention has the weight 1: only
// proportions count.
Result<MultiWeights> tune_multi(const std::shared_ptr<const Model>& model, const TuneWindows& windows,
                                const MultiOptions& options, const TuneProgress& progress = {});

}  // namespace a2sf
