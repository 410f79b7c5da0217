#include "kernels/cpu/recall.h"

#include <algorithm>
#include <numbers>

namespace a2sf::cpu {

void Recall::reserve(std::int64_t cold_slots, std::int64_t hot_slots, int group) {
  const auto cold = static_cast<std::size_t>(round_up(cold_slots, kTile));
  logits_.resize(std::max(logits_.size(), static_cast<std::size_t>(kRecentRows * group * kChunk)));
  if (additions_.size() < cold) additions_.resize(cold + cold / 2);
  choice_.cold.reserve(additions_.size());
  choice_.head.reserve(static_cast<std::size_t>(hot_slots));
}

const RecallChoice& Recall::choose(const RowKernels& kernels, const HeadCache& head, const ColdHead& cold,
                                   const HeadRule& rule, std::int64_t now, std::int64_t most, float scale) {
  const HeadCache& tokens = *cold.tokens;
  const int queries = cold.recent.count(now), dim = tokens.dim();
  for (int first = 0; first < tokens.used(); first += kChunk) {
    const auto slots = static_cast<int>(round_up(std::min(kChunk, tokens.used() - first), kTile));
    const ChunkMatrix keys{tokens.chunk_of(first).keys,
                           tokens.type(),
                           dim,
                           slots,
                           kTile,
                           static_cast<std::ptrdiff_t>(dim) * kTile,
                           nullptr};
    kernels.multiply(cold.recent.queries, dim, queries, keys, scale * std::numbers::log2e_v<float>, logits_.data(),
                     kChunk);
    kernels.additions(logits_.data(), kChunk, cold.recent.log_sums, queries, cold.recent.group, rule.power != 1, slots,
                      additions_.data() + first);
  }
  choose_recalled(head, tokens, rule, now, most, additions_, choice_);
  return choice_;
}

}  // namespace a2sf::cpu
