// TOVA over all heads of a layer against a plain simulation.
#include "hooks/fake_head.h"
#include "hooks/ranked_replay.h"

namespace a2sf::test {
namespace {

// The last row's probabilities of each position, summed over all query heads of the layer.
Ranks sums_of(const ShownLayer& shown) {
  Ranks sums;
  for (const ShownHead& head : shown) {
    for (int g = 0; g < kGroup; ++g) {
      for (const auto& [position, p] : head.probabilities(0, g)) sums[position] += p;
    }
  }
  return sums;
}

void cut(int, const ShownLayer& shown, Kept& kept) {
  const Ranks sums = sums_of(shown);
  for (std::size_t h = 0; h < shown.size(); ++h) {
    while (std::ssize(kept[h]) > shown[h].rule.budget) kept[h].erase(lowest_ranked(shown[h], kept[h], sums));
  }
}

class TovaMeanOn : public OnEveryDevice {};
A2SF_ON_EVERY_DEVICE(TovaMeanOn);

TEST_P(TovaMeanOn, TheLastRowsMeanOverAllHeadsDecides) {
  for (const char* options : {"budget=50", "budget=20:sink=3", "budget=24:recent=8", "budget=1", "budget=20:block=9"}) {
    SCOPED_TRACE(options);
    Replay replay(parse_policy(std::string("tova-mean:") + options).value(), model(), cut);
    converse(replay);
  }
}

TEST_P(TovaMeanOn, AllHeadsOfALayerHoldTheSameTokens) {
  Session session = session_of("tova-mean:budget=20", model());
  ASSERT_TRUE(session.feed(random_tokens(60), WantLogits::last, true));
  feed_in(session, random_tokens(20, 3), 1);
  for (int layer = 0; layer < 2; ++layer) EXPECT_EQ(session.retained(layer, 0), session.retained(layer, 1)) << layer;
}

// The heads' sets differ: each keeps the best of its own, by the sums over the heads that hold them.
TEST_P(TovaMeanOn, HeadsOfOtherBudgetsAreSummedUpTokenByToken) {
  PolicySpec spec = parse_policy("tova-mean").value();
  spec.budget.budget = BudgetTable{{{10, 30}, {25, 12}}, ""};
  Replay replay(spec, model(), cut);
  converse(replay);
}

// It may have scores of before, when it was bounded. Alone it would have the other end of the text stay.
TEST(TovaMean, AHeadThatKeepsAllHasNoSay) {
  constexpr std::int64_t kTokens = 20, kBudget = 5;
  const auto attends_to = [](std::size_t token, float how_much) {
    Vectors keys(kTokens, Floats(kHeadDim, 0.0F));
    for (std::size_t i = 0; i < keys.size(); ++i)
      keys[i].assign(kHeadDim, -how_much * std::abs(static_cast<float>(i) - static_cast<float>(token)));
    return keys;
  };
  const Vectors queries(kTokens, Floats(kHeadDim, 1.0F));
  FakeHead bounded({queries}, attends_to(kTokens - 1, 0.01F), queries), unbounded({queries}, attends_to(0, 1), queries);
  bounded.bound(kBudget, kBudget, 0, 0);
  unbounded.bound(kKeepAll, kKeepAll, 0, 0);
  HookHead* const heads[] = {&bounded, &unbounded};
  HookLayer layer(0, kTokens - 1, {}, heads);
  std::get<Hooked>(parse_policy("tova-mean").value().score).factory->make({1, 2, 2, kHeadDim})->evict(layer);
  EXPECT_EQ(bounded.kept(), (std::vector<int>{15, 16, 17, 18, 19}));
  EXPECT_EQ(unbounded.kept().size(), static_cast<std::size_t>(kTokens));
}

}  // namespace
}  // namespace a2sf::test
