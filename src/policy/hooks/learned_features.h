// What a learned score knows of a token: the features of policy/learned_model.h, for the hook and for its training.
#pragma once

#include <a2sf/hook.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "policy/learned_model.h"

namespace a2sf {

struct TokenNorms {
  float key, value;  // |k|_2, |v|_1
};

// `vector`: the caller's memory, kept from call to call.
inline TokenNorms read_norms(const HookHead& head, int slot, std::vector<float>& vector) {
  vector.resize(static_cast<std::size_t>(head.head_dim()));
  float squares = 0, sum = 0;
  head.read_key(slot, vector);
  for (const float x : vector) squares += x * x;
  head.read_value(slot, vector);
  for (const float x : vector) sum += std::abs(x);
  return {std::sqrt(squares), sum};
}

// The tokens of a head that may go.
class TokenFeatures {
 public:
  void begin(const HookHead& head, std::int64_t now) {
    now_ = now;
    find_candidates(head);
    find_last(head);
  }
  const std::vector<int>& candidates() const { return candidates_; }  // slots

  // Of the i-th candidate. All that is a size counts by its logarithm: attention differs by orders of magnitude.
  Features of(const HookHead& head, std::size_t i, const TokenNorms& norms) const {
    const int slot = candidates_[i];
    const auto log = [](float x) { return std::log(std::max(x, 1e-6F)); };
    Features features;
    features[kLogAttention] = log(head.score(slot));
    features[kLogLast] = log(last_[i]);
    features[kLogAge] = log(static_cast<float>(now_ - head.position(slot) + 1));
    features[kLogKeyNorm] = log(norms.key);
    features[kLogValueNorm] = log(norms.value);
    const auto less = std::lower_bound(sorted_.begin(), sorted_.end(), head.score(slot)) - sorted_.begin();
    features[kRank] = static_cast<float>(less) / std::max(1.0F, static_cast<float>(sorted_.size()) - 1);
    return features;
  }

 private:
  void find_candidates(const HookHead& head) {
    candidates_.clear();
    sorted_.clear();
    for (int slot = 0; slot < head.slots(); ++slot) {
      if (!head.may_go(slot)) continue;
      candidates_.push_back(slot);
      sorted_.push_back(head.score(slot));
    }
    std::sort(sorted_.begin(), sorted_.end());
  }

  // What the last row gave to each candidate, the mean over the group.
  void find_last(const HookHead& head) {
    last_.assign(candidates_.size(), 0);
    for (int g = 0; g < head.group(); ++g) {
      const auto probabilities = head.probabilities(0, g);
      if (probabilities.empty()) return;
      for (std::size_t i = 0; i < last_.size(); ++i)
        last_[i] += probabilities[static_cast<std::size_t>(candidates_[i])] / static_cast<float>(head.group());
    }
  }

  std::int64_t now_ = 0;
  std::vector<int> candidates_;
  std::vector<float> last_, sorted_;
};

}  // namespace a2sf
