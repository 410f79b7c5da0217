// lazy, victim by victim: times of attention by position, from the probabilities of every row.
#include <limits>

#include "hooks/lowest_first_support.h"

namespace a2sf::test {
namespace {

struct Times {
  std::int64_t last = 0, interval = 0;
};

RuleOfHead by_intervals(double threshold) {
  return [threshold, times = std::map<std::array<int, 3>, Times>()](const HookLayer& layer, int kv_head) mutable {
    const HookHead& head = layer.head(kv_head);
    const auto now = layer.position();
    std::map<int, double> most, scores;
    for (int g = 0; g < head.group(); ++g) {
      const auto p = head.probabilities(0, g);
      for_each_held(head, [&](int slot) {
        double& of_token = most[head.position(slot)];
        of_token = std::max(of_token, static_cast<double>(p[static_cast<std::size_t>(slot)]));
      });
    }
    for (const auto& [position, probability] : most) {
      Times& token = times[{layer.layer(), kv_head, position}];
      if (position == now) {
        token = {now, 0};
      } else if (probability >= threshold) {
        token = {now, std::max(token.interval, now - token.last)};
      }
      scores[position] = token.interval == 0
                             ? -std::numeric_limits<double>::infinity()
                             : -static_cast<double>(now - token.last) / static_cast<double>(token.interval);
    }
    return scores;
  };
}

class Lazy : public OnEveryDevice {};
A2SF_ON_EVERY_DEVICE(Lazy);

// Between 1/8 and 1/16 lies what a token of these small heads gets.
TEST_P(Lazy, WhatIsLongestOverdueGoes) {
  for (const char* threshold : {"0.0625", "0.125"}) {
    expect_lowest_first(GetParam(), std::string("lazy:threshold=") + threshold,
                        [&] { return by_intervals(std::stod(threshold)); });
  }
}

TEST_P(Lazy, AResizeAsksItToo) { expect_resizes(GetParam(), "lazy:budget=12:block=5:threshold=0.0625"); }

TEST_P(Lazy, GivesTheSameBytesInAnyChunksAndForks) {
  expect_same_bytes_in_chunks_and_forks(GetParam(), "lazy:budget=12:block=5:threshold=0.0625");
}

TEST(LazyText, ReadsAndPrintsItsOption) {
  expect_prints_as("lazy:budget=9", "lazy:budget=9");
  expect_prints_as("lazy:threshold=0.5:budget=9:block=4", "lazy:budget=9:block=4:threshold=0.5");
  expect_refused("lazy:threshold=2", "threshold '2' is not a number from 0 to 1");
  expect_refused("lazy:window=2", "lazy has no option 'window'");
}

}  // namespace
}  // namespace a2sf::test
