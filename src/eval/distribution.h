// Distributions over the vocabulary, from rows of logits.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "kernels/logits.h"

namespace a2sf {

// The index of the largest; the first of equals.
std::size_t top_index(std::span<const float> logits);

// A row that others are compared with.
class ReferenceRow {
 public:
  explicit ReferenceRow(std::span<const float> logits);

  double log_sum() const { return log_sum_; }
  std::size_t top() const { return top_; }
  // KL(this || other) in nats, given other's log_sum_exp.
  double divergence(std::span<const float> other, double other_log_sum) const;

 private:
  std::vector<float> logits_, probabilities_;
  double log_sum_;
  std::size_t top_;
};

}  // namespace a2sf
