// vatp, victim by victim: the lowest accumulated attention times the L1 norm of the value goes.
#include <cmath>

#include "hooks/lowest_first_support.h"

namespace a2sf::test {
namespace {

std::map<int, double> attention_times_value(const HookLayer& layer, int kv_head) {
  const HookHead& head = layer.head(kv_head);
  std::map<int, double> scores;
  for_each_held(head, [&](int slot) {
    double norm = 0;
    for (const float x : value_of(head, slot)) norm += std::abs(x);
    scores[head.position(slot)] = head.score(slot) * norm;
  });
  return scores;
}

class Vatp : public OnEveryDevice {};
A2SF_ON_EVERY_DEVICE(Vatp);

TEST_P(Vatp, TheLeastReadValueGoes) {
  for (const char* name : {"vatp", "vatp:alpha=1"})
    expect_lowest_first(GetParam(), name, [] { return attention_times_value; });
}

TEST_P(Vatp, AResizeAsksItToo) { expect_resizes(GetParam(), "vatp:budget=12:block=5"); }

TEST_P(Vatp, GivesTheSameBytesInAnyChunksAndForks) {
  expect_same_bytes_in_chunks_and_forks(GetParam(), "vatp:budget=12:block=5");
  expect_same_bytes_in_chunks_and_forks(GetParam(), "vatp:budget=12");
}

TEST(VatpText, PrintsWhatIsNotTheDefault) {
  expect_prints_as("vatp:budget=9:block=16", "vatp:budget=9");
  expect_prints_as("vatp:alpha=1:budget=9:block=4", "vatp:alpha=1:budget=9:block=4");
  expect_refused("vatp:budget=9:norm=2", "vatp has no option 'norm'");
}

}  // namespace
}  // namespace a2sf::test
