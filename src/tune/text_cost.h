// What a policy costs on windows of a text.
#pragma once

#include "tune/damage.h"

namespace a2sf {

enum class TextCost {
  log_loss,      // of the text, nats per token
  divergence,    // KL of the predictions to those of the full cache, nats
  mask_distance  // 1 - cosine of the kept and the ideal masks, with the full cache's hidden states
};

// How many sequences read the windows: for progress.
std::size_t readings_of(TextCost cost);

// The mean over the windows; `progress` as if they were the only work.
Result<double> text_cost(const std::shared_ptr<const Model>& model, const TuneWindows& windows, const PolicySpec& spec,
                         TextCost cost, const TuneProgress& progress);

}  // namespace a2sf
