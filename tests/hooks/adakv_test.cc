// AdaKV against a plain simulation.
#include "hooks/fake_head.h"
#include "hooks/ranked_replay.h"

namespace a2sf::test {
namespace {

// Of the whole layer the lowest ranked goes, but a head over its capacity comes first, and none falls below a fifth.
class SharedCuts {
 public:
  void operator()(int layer, const ShownLayer& shown, Kept& kept) {
    const auto excess = [&] {
      std::int64_t sum = 0;
      for (std::size_t h = 0; h < shown.size(); ++h) sum += std::ssize(kept[h]) - shown[h].rule.budget;
      return sum;
    };
    std::int64_t over_capacities = 0;
    for (std::size_t h = 0; h < shown.size(); ++h)
      over_capacities += std::max<std::int64_t>(0, std::ssize(kept[h]) - 2 * shown[h].rule.budget);
    const auto ranks = cuts_.ranks({layer, 0}, shown, std::max(excess(), over_capacities));
    const auto rank = [&](std::size_t h, int position) {
      return ranks[h].contains(position) ? ranks[h].at(position) : INFINITY;
    };
    for (std::size_t h = 0; h < shown.size(); ++h) {
      while (std::ssize(kept[h]) > 2 * shown[h].rule.budget) kept[h].erase(lowest_ranked(shown[h], kept[h], ranks[h]));
    }
    while (excess() > 0) {
      std::size_t owner = 0;
      int victim = -1;
      for (std::size_t h = 0; h < shown.size(); ++h) {
        if (std::ssize(kept[h]) <= std::max<std::int64_t>(1, shown[h].rule.budget / 5)) continue;
        const int lowest = lowest_ranked(shown[h], kept[h], ranks[h]);
        if (lowest < 0 || (victim >= 0 && rank(h, lowest) >= rank(owner, victim))) continue;
        owner = h;
        victim = lowest;
      }
      if (victim < 0) return;
      kept[owner].erase(victim);
    }
  }

 private:
  RankedCuts cuts_{[](const ShownHead& head) { return window_votes(head, 32, 5); }};
};

class AdaKvOn : public OnEveryDevice {};
A2SF_ON_EVERY_DEVICE(AdaKvOn);

TEST_P(AdaKvOn, TheHeadsOfALayerShareItsBudget) {
  for (const char* options :
       {"budget=50", "budget=60:sink=3", "budget=24:recent=2", "budget=12:recent=0", "budget=20"}) {
    SCOPED_TRACE(options);
    Replay replay(parse_policy(std::string("adakv:") + options).value(), model(), SharedCuts());
    converse(replay);
  }
}

// It evicts while the layer has room, and its ranking wears out as any other.
TEST_P(AdaKvOn, AHeadAtItsCapacityIsRankedAfresh) {
  PolicySpec spec = parse_policy("adakv:recent=4").value();
  spec.budget.budget = BudgetTable{{{10, 200}, {200, 10}}, ""};
  Replay replay(spec, model(), SharedCuts());
  converse(replay);
}

TEST_P(AdaKvOn, TheOthersKeepToTheirBudgetsBesideAHeadThatKeepsAll) {
  PolicySpec spec = parse_policy("adakv").value();
  spec.budget.budget = BudgetTable{{{kKeepAll, 40}, {40, 40}}, ""};
  Session session = session_of(spec, model());
  ASSERT_TRUE(session.feed(random_tokens(60), WantLogits::last, true));
  EXPECT_EQ(session.retained(0, 0).size(), 60U);
  EXPECT_EQ(session.retained(0, 1).size(), 40U);
}

// One head attends to its first token alone, the other to all of its tokens alike.
TEST(AdaKv, AHeadIsSureOfAFifthOfItsBudget) {
  constexpr std::int64_t kTokens = 60, kBudget = 30;
  const Vectors flat(kTokens, Floats(kHeadDim, 1.0F));
  Vectors sharp = flat;
  sharp[0].assign(kHeadDim, 20.0F);
  FakeHead one({flat}, sharp, flat), other({flat}, flat, flat);
  const PolicySpec spec = parse_policy("adakv").value();
  const HookFactory& factory = *std::get<Hooked>(spec.score).factory;
  for (FakeHead* head : {&one, &other}) head->bound(kBudget, factory.capacity(kBudget), 0, 0);
  HookHead* const heads[] = {&one, &other};
  HookLayer layer(0, kTokens - 1, {}, heads);
  factory.make({1, 2, 2, kHeadDim})->evict(layer);
  EXPECT_EQ(one.kept().size(), std::size_t{kBudget / 5});
  EXPECT_EQ(other.kept().size(), std::size_t{2 * kBudget - kBudget / 5});
}

}  // namespace
}  // namespace a2sf::test
