// A resize asks the hook who goes.
#include "hooks/hook_support.h"

namespace a2sf::test {
namespace {

void evict_highest_scores(HookLayer& layer) {
  for (int h = 0; h < layer.kv_heads(); ++h) {
    HookHead& head = layer.head(h);
    while (head.held() > head.budget()) {
      int victim = -1;
      for_each_held(head, [&](int slot) {
        if (head.may_go(slot) && (victim < 0 || head.score(slot) > head.score(victim))) victim = slot;
      });
      head.evict(victim);
    }
  }
}

class Resizing : public OnEveryDevice {};
A2SF_ON_EVERY_DEVICE(Resizing);

TEST_P(Resizing, TheHookNamesWhoGoes) {
  const auto told = std::make_shared<std::map<HeadKey, std::vector<int>>>();
  const auto left = [told](int layer, int h, const Eviction& eviction) {
    (*told)[{layer, h}].push_back(eviction.position);
  };
  Session session = session_of(hooked({evict_highest_scores, {}, left}, {}, "budget=20:sink=2:recent=3"), model());
  ASSERT_TRUE(session.feed(random_tokens(40)));
  told->clear();
  std::map<HeadKey, std::vector<std::pair<float, int>>> before;
  for_each_head(*model(), [&](int layer, int h) {
    const auto positions = session.retained(layer, h);
    const auto scores = session.scores(layer, h);
    for (std::size_t i = 2; i < 17; ++i) before[{layer, h}].emplace_back(scores[i], positions[i]);
  });
  session.record_evictions();
  ASSERT_TRUE(session.resize({BudgetCount{8}, {}}));
  for_each_head(*model(), [&](int layer, int h) {
    auto& tokens = before[{layer, h}];
    std::sort(tokens.rbegin(), tokens.rend());
    std::vector<std::pair<int, int>> expected;
    for (std::size_t i = 0; i < 12; ++i) expected.emplace_back(39, tokens[i].second);
    const auto evictions = session.evictions(layer, h);
    EXPECT_EQ(victims_of(evictions), expected);
    ASSERT_EQ(evictions.size(), 12U);
    EXPECT_EQ(evictions[0].score, tokens[0].first);
    EXPECT_EQ(session.retained(layer, h).size(), 8U);
    EXPECT_EQ(session.rule(layer, h).budget, 8);
    EXPECT_EQ((told->at({layer, h}).size()), 12U) << "the hook is told, once";
  });
  ASSERT_TRUE(session.feed(random_tokens(20, 2)));
  for_each_head(*model(), [&](int layer, int h) { EXPECT_EQ(session.retained(layer, h).size(), 8U); });
}

// What a resize evicts is what a step would have.
TEST_P(Resizing, ChoosesByTheQueriesOfTheLastRowsAsAStepWould) {
  const auto by_probability = [](HookLayer& layer) {
    for (int h = 0; h < layer.kv_heads(); ++h) {
      HookHead& head = layer.head(h);
      Floats sum(static_cast<std::size_t>(head.slots()));
      for (int back = 0; back < 4; ++back) {
        for (int g = 0; g < head.group(); ++g) {
          const auto p = head.probabilities(back, g);
          for (std::size_t i = 0; i < p.size(); ++i) sum[i] += p[i];
        }
      }
      while (head.held() > head.budget()) {
        int victim = -1;
        for_each_held(head, [&](int slot) {
          if (!head.may_go(slot)) return;
          if (victim < 0 || sum[static_cast<std::size_t>(slot)] < sum[static_cast<std::size_t>(victim)]) victim = slot;
        });
        head.evict(victim);
      }
    }
  };
  const Tokens tokens = random_tokens(40);
  const HookNeeds needs{.last_rows = 4};
  Session resized = session_of(hooked({by_probability, {}, {}}, needs, "budget=100:recent=4"), model());
  Session block = session_of(hooked({by_probability, {}, {}}, needs, "budget=12:block=28:recent=4"), model());
  ASSERT_TRUE(resized.feed(tokens) && block.feed(tokens));
  ASSERT_TRUE(resized.resize({BudgetCount{12}, {}}));
  for_each_head(*model(), [&](int layer, int h) { EXPECT_EQ(resized.retained(layer, h), block.retained(layer, h)); });
}

TEST_P(Resizing, UpAsksNobody) {
  int calls = 0;
  const auto evict = [&](HookLayer& layer) {
    ++calls;
    evict_lowest_scores(layer);
  };
  Session session = session_of(hooked({evict, {}, {}}, {}, "budget=10"), model());
  ASSERT_TRUE(session.feed(random_tokens(30)));
  const int before = calls;
  ASSERT_TRUE(session.resize({BudgetCount{20}, {}}));
  EXPECT_EQ(calls, before);
  ASSERT_TRUE(session.feed(random_tokens(10, 2)));
  EXPECT_EQ(calls, before) << "it is not full yet";
  EXPECT_EQ(session.retained(0, 0).size(), 20U);
}

TEST_P(Resizing, BeforeTheFirstTokenTakesTheNewBudget) {
  Session session = session_of(hooked({evict_lowest_scores, {}, {}}, {}, "budget=10"), model());
  ASSERT_TRUE(session.resize({BudgetCount{6}, {}}));
  ASSERT_TRUE(session.feed(random_tokens(20)));
  EXPECT_EQ(session.retained(0, 0).size(), 6U);
}

TEST_P(Resizing, ThatTheHookGetsWrongChangesNothing) {
  const Tokens start = random_tokens(30), rest = random_tokens(20, 2);
  // Merges before it goes wrong, with a state of its own.
  const auto evict = [calls = 0](HookLayer& layer) mutable {
    ++calls;
    HookHead& head = layer.head(0);
    const bool is_resize = head.held() > head.budget() + 1;
    for_each_held(head, [&](int slot) {
      if (calls % 2 == 0 || is_resize) head.write_value(slot, Floats(kHeadDim, 0.5F));
    });
    if (is_resize && layer.layer() == 1) {
      head.evict(head.slots());
    } else {
      evict_lowest_scores(layer);
    }
  };
  const PolicySpec spec = hooked({evict, {}, {}}, {.keys_values = true}, "budget=12");
  Session session = session_of(spec, model()), untouched = session_of(spec, model());
  ASSERT_TRUE(session.feed(start) && untouched.feed(start));
  session.record_evictions();
  const Status resized = session.resize({BudgetCount{6}, {}});
  ASSERT_FALSE(resized);
  EXPECT_NE(resized.error().message.find("'test-hook'"), std::string::npos) << resized.error().message;
  EXPECT_EQ(session.failure(), nullptr);
  EXPECT_TRUE(session.evictions(0, 0).empty());
  EXPECT_EQ(session.rule(0, 0).budget, 12);
  EXPECT_TRUE(same_bytes(feed_all(session, rest), feed_all(untouched, rest)));
}

}  // namespace
}  // namespace a2sf::test
