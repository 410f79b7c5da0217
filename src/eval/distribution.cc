#include "eval/distribution.h"

#include <algorithm>
#include <cmath>

namespace a2sf {

std::size_t top_index(std::span<const float> logits) {
  return static_cast<std::size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

ReferenceRow::ReferenceRow(std::span<const float> logits)
    : logits_(logits.begin(), logits.end()),
      probabilities_(logits.size()),
      log_sum_(log_sum_exp(logits)),
      top_(top_index(logits)) {
  for (std::size_t i = 0; i < logits.size(); ++i) {
    probabilities_[i] = std::exp(static_cast<float>(logits[i] - log_sum_));
  }
}

double ReferenceRow::divergence(std::span<const float> other, double other_log_sum) const {
  // sum p (log p - log q), where sum p is divided out: its rounding error would count once per nat of difference.
  double sum = 0, difference = 0;
  for (std::size_t i = 0; i < logits_.size(); ++i) {
    sum += probabilities_[i];
    difference += static_cast<double>(probabilities_[i]) * (logits_[i] - other[i]);
  }
  return std::max(0.0, difference / sum + other_log_sum - log_sum_);
}

}  // namespace a2sf
