#include "engine/token_distribution.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace a2sf {
namespace {

std::vector<Token> tokens_of(const std::vector<TokenLogprob>& choices) {
  std::vector<Token> tokens;
  for (const TokenLogprob& choice : choices) tokens.push_back(choice.token);
  return tokens;
}

TEST(TokenDistribution, SumsToOneOverTheWholeVocabulary) {
  std::vector<float> logits(50000);
  for (std::size_t i = 0; i < logits.size(); ++i) logits[i] = 500 + 9 * std::sin(static_cast<float>(i));
  const TokenDistribution distribution(logits);
  double sum = 0, sum_of_likeliest = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) sum += std::exp(distribution.of(static_cast<Token>(i)).logprob);
  EXPECT_NEAR(sum, 1, 1e-5);
  const auto all = distribution.likeliest(logits.size() + 1);
  EXPECT_EQ(all.size(), logits.size());
  for (const TokenLogprob& choice : all) sum_of_likeliest += std::exp(choice.logprob);
  EXPECT_NEAR(sum_of_likeliest, 1, 1e-5);
}

TEST(TokenDistribution, IsThatOfTheLogits) {
  const std::vector<float> logits = {0, std::log(3.0F)};
  const TokenDistribution distribution(logits);
  EXPECT_NEAR(distribution.of(0).logprob, std::log(0.25), 1e-6);
  EXPECT_NEAR(distribution.of(1).logprob, std::log(0.75), 1e-6);
}

TEST(TokenDistribution, TheLikeliestComeFirstAndOfEqualsTheLowerId) {
  const std::vector<float> logits = {1, 3, 2, 3, 1, 3, 2};
  const TokenDistribution distribution(logits);
  const std::vector<Token> order = {1, 3, 5, 2, 6, 0, 4};
  for (std::size_t count = 0; count <= 9; ++count) {
    const std::vector<Token> expected(order.begin(),
                                      order.begin() + static_cast<std::ptrdiff_t>(std::min(count, order.size())));
    EXPECT_EQ(tokens_of(distribution.likeliest(count)), expected) << count;
  }
  EXPECT_EQ(distribution.likeliest(3)[2].logprob, distribution.of(5).logprob);
}

}  // namespace
}  // namespace a2sf
