// Policies side by side on one text: what each predicts of the next token, against the full cache.
#pragma once

#include <a2sf/session.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <vector>

namespace a2sf {

struct CompareOptions {
  KvType kv_type = KvType::f16;
  std::size_t prompt = 0;   // the first tokens that are read but not scored; needed by block = prompt
  std::size_t decode = 64;  // the last tokens, fed one by one
};

struct ComparisonRow {
  PolicySpec spec;
  double perplexity, kl_to_full, top1_agreement;
  std::size_t kv_bytes;
  std::size_t cold_bytes;  // of these, those of the cold tier
  double prompt_tokens_per_s, decode_tokens_per_s;
};

struct ComparisonReport {
  std::size_t tokens_scored;
  std::vector<ComparisonRow> rows;  // the first is the full cache
};

// Work done and to do, in tokens of all policies; false cancels.
using EvalProgress = std::function<bool(std::size_t done, std::size_t total)>;

// Whether compare() takes these; it looks itself as well. For who wants to know before he says anything else.
Status check_comparison(const Model& model, std::span<const std::int32_t> tokens, std::span<const PolicySpec> specs,
                        const CompareOptions& options);

// All specs advance in step through the text, so that no logits are stored. The full cache is always run; a spec that
// keeps everything is not run again.
Result<ComparisonReport> compare(const std::shared_ptr<const Model>& model, std::span<const std::int32_t> tokens,
                                 std::span<const PolicySpec> specs, const CompareOptions& options,
                                 const EvalProgress& progress = {});

}  // namespace a2sf
