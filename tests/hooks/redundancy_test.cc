// r-kv, victim by victim, against a plain computation over all pairs of keys.
#include <cmath>

#include "hooks/lowest_first_support.h"

namespace a2sf::test {
namespace {

// The mean of each column of the matrix of cosines, without the diagonal and, in each row, without the newest token
// whose cosine is above a half.
std::map<int, double> mean_cosines(const std::map<int, Floats>& keys) {
  std::map<int, double> means;
  for (const auto& [row, key] : keys) {
    std::map<int, double> cosines;
    int newest = -1;
    for (const auto& [column, other] : keys) {
      if (column == row) continue;
      cosines[column] = cosine(key, other);
      if (cosines[column] > 0.5) newest = column;
    }
    cosines.erase(newest);
    for (const auto& [column, value] : cosines) means[column] += value / static_cast<double>(keys.size());
  }
  return means;
}

RuleOfHead redundancy(double lambda) {
  return [lambda](const HookLayer& layer, int kv_head) {
    const HookHead& head = layer.head(kv_head);
    std::map<int, Floats> keys;
    std::map<int, double> scores;
    double attention = 0, sum = 0;
    for_each_held(head, [&](int slot) {
      keys[head.position(slot)] = key_of(head, slot);
      attention += head.score(slot);
    });
    auto means = mean_cosines(keys);
    for (const auto& [position, key] : keys) sum += std::exp(means[position]);
    for_each_held(head, [&](int slot) {
      const int position = head.position(slot);
      scores[position] = lambda * head.score(slot) / attention - (1 - lambda) * std::exp(means[position]) / sum;
    });
    return scores;
  };
}

class Redundancy : public OnEveryDevice {};
A2SF_ON_EVERY_DEVICE(Redundancy);

TEST_P(Redundancy, TheLeastAttendedToAndMostAlikeGoes) {
  expect_lowest_first(GetParam(), "r-kv", [] { return redundancy(0.3); });
  expect_lowest_first(GetParam(), "r-kv:lambda=0", [] { return redundancy(0); });
  expect_lowest_first(GetParam(), "r-kv:lambda=0.7:alpha=0.9", [] { return redundancy(0.7); });
}

TEST_P(Redundancy, OfAttentionAloneIsTheBuiltInPolicy) {
  expect_bytes_of_a2sf(GetParam(), "r-kv:lambda=1:budget=12:block=5");
}

TEST_P(Redundancy, AResizeAsksItToo) { expect_resizes(GetParam(), "r-kv:budget=12:block=5"); }

TEST_P(Redundancy, GivesTheSameBytesInAnyChunksAndForks) {
  expect_same_bytes_in_chunks_and_forks(GetParam(), "r-kv:budget=12:block=5");
}

TEST(RedundancyText, ReadsAndPrintsItsOption) {
  expect_prints_as("r-kv:lambda=0.3:budget=9", "r-kv:budget=9");
  expect_prints_as("r-kv:lambda=0.25:budget=9:block=4", "r-kv:budget=9:block=4:lambda=0.25");
  expect_refused("r-kv:lambda=1.5", "lambda '1.5' is not a number from 0 to 1");
  expect_refused("r-kv:lambda=half", "lambda 'half' is not a number from 0 to 1");
  expect_refused("r-kv:lambda=nan", "lambda 'nan' is not a number from 0 to 1");
  expect_refused("r-kv:beta=2", "r-kv has no option 'beta'");
}

}  // namespace
}  // namespace a2sf::test
