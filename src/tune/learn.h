// A learned score for a model, from a text.
#pragma once

#include "policy/learned_model.h"
#include "tune/damage.h"

namespace a2sf {

enum class LearnedKind { linear, mlp };

struct LearnOptions {
  LearnedKind kind = LearnedKind::mlp;
  std::int64_t budget = 128;  // under which tokens are looked at
};

// `progress` counts tokens; training a layer counts as some. The texts are the caller's to name.
Result<LearnedModel> learn_score(const std::shared_ptr<const Model>& model, const TuneWindows& windows,
                                 const LearnOptions& options, const TuneProgress& progress = {});

}  // namespace a2sf
