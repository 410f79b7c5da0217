// KeyDiff against a plain simulation.
#include "hooks/ranked_replay.h"

namespace a2sf::test {
namespace {

Doubles normalised(Doubles x) {
  const double length = std::sqrt(std::inner_product(x.begin(), x.end(), x.begin(), 0.0));
  for (double& each : x) each /= length;
  return x;
}

// 1 - the cosine of each key to the mean of all keys at length 1.
Ranks distances(const ShownHead& head) {
  Doubles mean(kHeadDim);
  for (const auto& [position, token] : head.tokens) {
    const Doubles key = normalised(token.key);
    for (std::size_t i = 0; i < key.size(); ++i) mean[i] += key[i] / static_cast<double>(head.tokens.size());
  }
  mean = normalised(mean);
  Ranks ranks;
  for (const auto& [position, token] : head.tokens) {
    const Doubles key = normalised(token.key);
    ranks[position] = 1 - std::inner_product(key.begin(), key.end(), mean.begin(), 0.0);
  }
  return ranks;
}

class KeyDiffOn : public OnEveryDevice {};
A2SF_ON_EVERY_DEVICE(KeyDiffOn);

TEST_P(KeyDiffOn, TheKeyMostLikeTheOthersGoes) {
  for (const char* options : {"budget=50", "budget=20:sink=3", "budget=24:recent=8", "budget=2", "budget=20:block=9"}) {
    SCOPED_TRACE(options);
    Replay replay(parse_policy(std::string("keydiff:") + options).value(), model(), RankedCuts(distances));
    converse(replay);
  }
}

}  // namespace
}  // namespace a2sf::test
