// Expected attention against a plain simulation.
#include "hooks/ranked_replay.h"

namespace a2sf::test {
namespace {

// Of the tokens that may go: softmax of scale mean.k + scale^2 k'(covariance)k / 2, over the group, times |v|.
Ranks expectations(const ShownHead& head, int rows) {
  const int count = std::min(rows, static_cast<int>(head.queries.size()));
  Ranks ranks;
  for (std::size_t g = 0; g < kGroup; ++g) {
    Doubles mean(kHeadDim);
    std::vector<Doubles> covariance(kHeadDim, Doubles(kHeadDim));
    const auto query = [&](int back) { return head.queries[static_cast<std::size_t>(back)][g]; };
    for (int back = 0; back < count; ++back) {
      for (std::size_t i = 0; i < kHeadDim; ++i) mean[i] += query(back)[i] / count;
    }
    for (int back = 0; back < count; ++back) {
      for (std::size_t i = 0; i < kHeadDim; ++i) {
        for (std::size_t j = 0; j < kHeadDim; ++j)
          covariance[i][j] += (query(back)[i] - mean[i]) * (query(back)[j] - mean[j]) / count;
      }
    }
    std::map<int, double> given;
    double sum = 0;
    for (const auto& [position, token] : head.tokens) {
      if (!head.may_go(position)) continue;
      double x = 0;
      for (std::size_t i = 0; i < kHeadDim; ++i) {
        x += head.scale * mean[i] * token.key[i];
        for (std::size_t j = 0; j < kHeadDim; ++j)
          x += head.scale * head.scale * token.key[i] * covariance[i][j] * token.key[j] / 2;
      }
      sum += given[position] = std::exp(x);
    }
    for (const auto& [position, expectation] : given) {
      const Doubles& v = head.tokens.at(position).value;
      ranks[position] += expectation / sum * std::sqrt(std::inner_product(v.begin(), v.end(), v.begin(), 0.0));
    }
  }
  return ranks;
}

class ExpectedOn : public OnEveryDevice {};
A2SF_ON_EVERY_DEVICE(ExpectedOn);

TEST_P(ExpectedOn, TheLeastExpectedAttentionTimesValueGoes) {
  for (const char* options : {"budget=50", "budget=20:sink=0:recent=8", "budget=3", "budget=20:block=9"}) {
    SCOPED_TRACE(options);
    Replay replay(parse_policy(std::string("expected:") + options).value(), model(),
                  RankedCuts([](const ShownHead& head) { return expectations(head, 64); }));
    converse(replay);
  }
}

TEST_P(ExpectedOn, TheWindowIsAnOption) {
  Replay replay(parse_policy("expected:budget=30:window=7").value(), model(),
                RankedCuts([](const ShownHead& head) { return expectations(head, 7); }));
  converse(replay);
}

}  // namespace
}  // namespace a2sf::test
