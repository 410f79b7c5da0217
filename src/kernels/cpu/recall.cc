#include "kernels/cpu/recall.h"

#include <algorithm>
#include <numbers>

namespace a2sf::cpu {

void Recall::reserve(std::int64_t cold_slots, std::int64_t hot_slots, int group, std::int64_t dim) {
  const auto cold = static_cast<std::size_t>(round_up(cold_slots, kTile));
  const auto queries = static_cast<std::size_t>(kRecallRows * group);
  if (log_sums_.size() < queries) log_sums_.resize(queries);
  queries_.resize(std::max(queries_.size(), queries * static_cast<std::size_t>(dim)));
  logits_.resize(std::max(logits_.size(), queries * kChunk));
  if (additions_.size() < cold) additions_.resize(cold + cold / 2);
  choice_.cold.reserve(additions_.size());
  choice_.head.reserve(static_cast<std::size_t>(hot_slots));
}

int Recall::gather(const RecentQueries& recent, std::int64_t now) {
  int count = 0;
  for (int i = 0; i < kRecallRows && RecentQueries::row(now, i) >= 0; ++i) {
    for (int g = 0; g < recent.group; ++g, ++count) {
      const std::int64_t row = RecentQueries::row(now, i);
      std::copy_n(recent.query(row, g), recent.dim, queries_.begin() + std::ptrdiff_t{count} * recent.dim);
      log_sums_[static_cast<std::size_t>(count)] = recent.log_sum(row, g);
    }
  }
  return count;
}

const RecallChoice& Recall::choose(const RowKernels& kernels, const HeadCache& head, const ColdHead& cold,
                                   const HeadRule& rule, std::int64_t now, std::int64_t most, float scale) {
  const HeadCache& tokens = *cold.tokens;
  const int queries = gather(cold.recent, now), dim = tokens.dim();
  for (int first = 0; first < tokens.used(); first += kChunk) {
    const auto slots = static_cast<int>(round_up(std::min(kChunk, tokens.used() - first), kTile));
    const ChunkMatrix keys{tokens.chunk_of(first).keys,
                           tokens.type(),
                           dim,
                           slots,
                           kTile,
                           static_cast<std::ptrdiff_t>(dim) * kTile,
                           nullptr};
    kernels.multiply(queries_.data(), dim, queries, keys, scale * std::numbers::log2e_v<float>, logits_.data(), kChunk);
    kernels.additions(logits_.data(), kChunk, log_sums_.data(), queries, cold.recent.group, rule.power != 1, slots,
                      additions_.data() + first);
  }
  choose_recalled(head, tokens, rule, now, most, additions_, choice_);
  return choice_;
}

}  // namespace a2sf::cpu
