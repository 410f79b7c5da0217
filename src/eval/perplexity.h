// Perplexity over windows of a text, each read with a fresh cache.
#pragma once

#include "eval/compare.h"

namespace a2sf {

enum class ScoredPart { half, all };  // the second half of each window (llama-perplexity's rule), or every prediction

struct PerplexityOptions {
  PolicySpec policy;
  KvType kv_type = KvType::f16;
  std::size_t window = 512;
  ScoredPart score = ScoredPart::half;
  std::size_t prompt = 0;         // the first tokens of each window, which are not scored; needed by block = prompt
  std::int32_t first_token = -1;  // replaces the first token of each window unless negative
};

struct PerplexityReport {
  double perplexity;
  double standard_error;  // of the perplexity
  std::size_t windows, tokens_scored;
  std::size_t kv_bytes;    // the peak of one window
  std::size_t cold_bytes;  // of these, those of the cold tier
  double tokens_per_s;
};

// An incomplete last window is left out.
Result<PerplexityReport> perplexity(const std::shared_ptr<const Model>& model, std::span<const std::int32_t> tokens,
                                    const PerplexityOptions& options, const EvalProgress& progress = {});

}  // namespace a2sf
