#include "kernels/cpu/recall.h"

#include <algorithm>
#include <bit>
#include <numbers>

#include "core/reserve.h"

namespace a2sf::cpu {
namespace {

void ensure(std::vector<float>& buffer, std::int64_t size) {
  reserve_amortised(buffer, static_cast<std::size_t>(size));
  if (std::ssize(buffer) < size) buffer.resize(static_cast<std::size_t>(size));
}

}  // namespace

void Recall::reserve(std::int64_t positions, std::int64_t hot_slots, std::int64_t cold_slots, int group) {
  group_ = group;
  ensure(logits_, std::int64_t{group} * kChunk);
  ensure(log_sums_, group);
  ensure(of_head_, round_up(hot_slots, kTile));
  ensure(of_cold_, round_up(cold_slots, kTile));
  choice_.head.reserve(of_head_.size());
  choice_.cold.reserve(2 * of_head_.size());
  const std::size_t most = std::bit_ceil(static_cast<std::size_t>(positions));  // rarely more memory
  choice_.wanted.reserve(most);
  choice_.additions.reserve(most + kRecallReach - 1);
}

const RecallChoice& Recall::choose(const RowKernels& kernels, const RecallRow& row, const HeadCache& head,
                                   const HeadCache& cold, const HeadRule& rule, std::int64_t most) {
  const int dim = cold.dim();
  for (int first = 0; first < cold.used(); first += kChunk) {
    const auto slots = static_cast<int>(round_up(std::min(kChunk, cold.used() - first), kTile));
    const int next = first + kChunk;
    const ChunkMatrix keys{cold.chunk_of(first).keys,
                           cold.type(),
                           dim,
                           slots,
                           kTile,
                           static_cast<std::ptrdiff_t>(dim) * kTile,
                           next < cold.used() ? cold.chunk_of(next).keys : nullptr};
    kernels.multiply(row.queries, dim, group_, keys, row.scale * std::numbers::log2e_v<float>, logits_.data(), kChunk);
    kernels.additions(logits_.data(), kChunk, log_sums_.data(), group_, rule.power != 1, slots,
                      of_cold_.data() + first);
  }
  choose_recalled(head, cold, rule, row.position, most, of_head_, of_cold_, choice_);
  return choice_;
}

}  // namespace a2sf::cpu
