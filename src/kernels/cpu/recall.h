// Which tokens of a head's cold tier come back.
#pragma once

#include <vector>

#include "kernels/cpu/row_kernels.h"
#include "policy/recall.h"

namespace a2sf::cpu {

// The choice after a row, and room for making it.
class Recall {
 public:
  // For a cold tier of so many slots and the recent queries of a group. May throw std::bad_alloc.
  void reserve(std::int64_t cold_slots, std::int64_t hot_slots, int group, std::int64_t dim);
  // choose_recalled() of policy/recall.h, with the additions that it asks for. `scale`: of the logits.
  const RecallChoice& choose(const RowKernels& kernels, const HeadCache& head, const ColdHead& cold,
                             const HeadRule& rule, std::int64_t now, std::int64_t most, float scale);
  std::span<const float> additions() const { return additions_; }  // [cold slot], of the last choice

 private:
  // Copies the queries that choose. Returns how many there are.
  int gather(const RecentQueries& recent, std::int64_t now);

  std::vector<float> queries_, log_sums_;  // [row that chooses][query head]([dim])
  std::vector<float> logits_;              // [such a query][kChunk]
  std::vector<float> additions_;           // [cold slot]
  RecallChoice choice_;
};

}  // namespace a2sf::cpu
