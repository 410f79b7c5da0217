#include "engine/token_distribution.h"

#include <algorithm>
#include <cmath>

namespace a2sf {

TokenDistribution::TokenDistribution(std::span<const float> logits) : logits_(logits) {
  const float largest = *std::max_element(logits.begin(), logits.end());  // so that no exponential overflows
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  log_sum_ = largest + std::log(sum);
}

TokenLogprob TokenDistribution::of(Token token) const {
  return {token, static_cast<float>(logits_[static_cast<std::size_t>(token)] - log_sum_)};
}

std::vector<TokenLogprob> TokenDistribution::likeliest(std::size_t count) const {
  const auto likelier = [&](const TokenLogprob& a, const TokenLogprob& b) {
    const float first = logits_[static_cast<std::size_t>(a.token)], second = logits_[static_cast<std::size_t>(b.token)];
    return first != second ? first > second : a.token < b.token;
  };
  std::vector<TokenLogprob> top;  // a heap: the least likely of them is in front
  count = std::min(count, logits_.size());
  if (count == 0) return top;
  top.reserve(count + 1);
  for (std::size_t i = 0; i < logits_.size(); ++i) {
    const TokenLogprob candidate = of(static_cast<Token>(i));
    if (top.size() == count && likelier(top.front(), candidate)) continue;
    top.push_back(candidate);
    std::push_heap(top.begin(), top.end(), likelier);
    if (top.size() <= count) continue;
    std::pop_heap(top.begin(), top.end(), likelier);
    top.pop_back();
  }
  std::sort_heap(top.begin(), top.end(), likelier);
  return top;
}

}  // namespace a2sf
