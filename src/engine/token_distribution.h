// What a model says of the next token, as log-probabilities.
#pragma once

#include <a2sf/text.h>

#include <cstddef>
#include <span>
#include <vector>

namespace a2sf {

struct TokenLogprob {
  Token token;
  float logprob;  // natural logarithm
};

// The distribution that a row of logits stands for, as it is: before any temperature, penalty or cut of a sampler.
class TokenDistribution {
 public:
  // A view of `logits` [vocabulary], finite and at least one.
  explicit TokenDistribution(std::span<const float> logits);

  TokenLogprob of(Token token) const;  // a token below the vocabulary's size
  // The `count` likeliest tokens, the likeliest first; of equals the lower id. No more than the vocabulary has.
  std::vector<TokenLogprob> likeliest(std::size_t count) const;

 private:
  std::span<const float> logits_;
  double log_sum_;  // log(sum(exp(logits)))
};

}  // namespace a2sf
