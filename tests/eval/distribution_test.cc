#include "eval/distribution.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace a2sf {
namespace {

std::vector<float> logs(const std::vector<double>& values) {
  std::vector<float> logits;
  for (const double value : values) logits.push_back(static_cast<float>(std::log(value)));
  return logits;
}

double divergence(const std::vector<float>& of, const std::vector<float>& from) {
  return ReferenceRow(of).divergence(from, log_sum_exp(from));
}

// p = (1/2, 1/2), q = (1/4, 3/4): sum p log(p/q) = log(2)/2 + log(2/3)/2 = log(4/3)/2, and
// sum q log(q/p) = log(1/2)/4 + 3 log(3/2)/4.
TEST(Divergence, IsThatOfTheReferenceFromTheOther) {
  EXPECT_NEAR(divergence(logs({.5, .5}), logs({.25, .75})), 0.143841036, 1e-7);
  EXPECT_NEAR(divergence(logs({.25, .75}), logs({.5, .5})), 0.130812036, 1e-7);
}

TEST(Divergence, IsOfProbabilitiesWhateverIsAddedToTheLogits) {
  EXPECT_NEAR(divergence(logs({8, 8}), logs({.01, .03})), 0.143841036, 1e-6);
}

TEST(Divergence, OfARowFromItselfIsZero) {
  const auto row = logs({.2, .7, .1});
  EXPECT_EQ(divergence(row, row), 0);
}

TEST(LogSumExp, TakesLogitsThatExpCannot) {
  EXPECT_NEAR(log_sum_exp(std::vector<float>{1000, 1000}), 1000.693147, 1e-6);
}

TEST(TopIndex, IsTheFirstOfEquals) { EXPECT_EQ(top_index(std::vector<float>{1, 3, 2, 3}), 1U); }

}  // namespace
}  // namespace a2sf
