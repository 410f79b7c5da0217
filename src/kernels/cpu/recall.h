// Which tokens of a head's cold tier come back.
#pragma once

#include <vector>

#include "kernels/cpu/row_kernels.h"
#include "policy/recall.h"

namespace a2sf::cpu {

// A row of a KV head's group, before it attends.
struct RecallRow {
  std::int64_t position;
  const float* queries;  // [query head][padded dim]
  float scale;           // of the logits
};

// The choice before a row, and room for making it.
class Recall {
 public:
  // For positions below `positions`, heads of so many slots, a cold tier of so many, and a group of query heads. May
  // throw std::bad_alloc.
  void reserve(std::int64_t positions, std::int64_t hot_slots, std::int64_t cold_slots, int group);

  // To be filled in before the choice: what the row would add to the score of each slot of the head, and its log sums.
  std::span<float> of_head() { return of_head_; }    // [slot]
  std::span<float> log_sums() { return log_sums_; }  // [query head]
  // choose_recalled() of policy/recall.h.
  const RecallChoice& choose(const RowKernels& kernels, const RecallRow& row, const HeadCache& head,
                             const HeadCache& cold, const HeadRule& rule, std::int64_t most);

 private:
  int group_ = 0;
  std::vector<float> logits_;             // [query head][kChunk]
  std::vector<float> log_sums_;           // [query head]
  std::vector<float> of_head_, of_cold_;  // [slot]
  RecallChoice choice_;
};

}  // namespace a2sf::cpu
