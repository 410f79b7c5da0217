// Observers: they see all, and change nothing.
#include "hooks/hook_support.h"

namespace a2sf::test {
namespace {

constexpr HookNeeds kEverything{.every_row = true, .last_rows = 2, .keys_values = true};

// Looks at whatever there is, and keeps who left and what each row gave each token.
struct Log {
  std::map<HeadKey, std::vector<Eviction>> left;
  std::map<std::array<int, 4>, float> given;  // layer, KV head, row, position: summed over the group

  std::shared_ptr<Onlooker> onlooker() {
    const auto onlooker = std::make_shared<Onlooker>();
    onlooker->on_row = [this](const HookLayer& layer) {
      for (int h = 0; h < layer.kv_heads(); ++h) look_at(layer.head(h), layer.layer(), h, layer.position());
    };
    onlooker->on_left = [this](int layer, int h, const Eviction& eviction) { left[{layer, h}].push_back(eviction); };
    return onlooker;
  }

 private:
  void look_at(const HookHead& head, int layer, int kv_head, std::int64_t now) {
    Floats read(kHeadDim);
    for_each_held(head, [&](int slot) {
      head.read_key(slot, read);
      head.read_value(slot, read);
      float sum = 0;
      for (int g = 0; g < head.group(); ++g) {
        sum += head.probabilities(0, g)[static_cast<std::size_t>(slot)];
        EXPECT_EQ(head.query(1, g).empty(), now == 0);
      }
      given[{layer, kv_head, static_cast<int>(now), head.position(slot)}] = sum;
    });
  }
};

void expect_same_record(const std::map<HeadKey, std::vector<Eviction>>& a,
                        const std::map<HeadKey, std::vector<Eviction>>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [head, record] : a) {
    const auto& other = b.at(head);
    EXPECT_EQ(victims_of(record), victims_of(other));
    for (std::size_t i = 0; i < std::min(record.size(), other.size()); ++i) {
      EXPECT_EQ(record[i].score, other[i].score);
      EXPECT_EQ(record[i].probability, other[i].probability);
    }
  }
}

struct Case {
  const char* architecture;
  const char* policy;
};
constexpr Case kCases[] = {
    {"llama", "full"},
    {"llama", "local:budget=10"},
    {"llama", "streaming:budget=10"},
    {"llama", "h2o:budget=10:block=5"},
    {"llama", "tova:budget=10"},
    {"llama", "a2sf:budget=10"},
    {"llama", "a2sf:budget=10:value-weight=on:sink=1:power=1.5"},
    {"llama", "a2sf:budget=10:block=40"},
    {"llama", "a2sf:budget=10:layers=1"},
    {"llama", "ideal:budget=10"},
    {"llama", "shared-budget:budget=10:block=2"},
    {"gemma3", "full"},
    {"gemma3", "ideal:budget=8"},
    {"gemma3", "a2sf:budget=8"},
    {"gemma3", "a2sf:budget=20:block=6"},
    {"gemma3", "shared-budget:budget=9"},
};

class Observing : public OnEveryDevice {};
A2SF_ON_EVERY_DEVICE(Observing);

TEST_P(Observing, ChangesNoByteAndSeesEveryVictim) {
  const Tokens tokens = random_tokens(70);
  for (const Case& c : kCases) {
    SCOPED_TRACE(std::string(c.architecture) + " " + c.policy);
    const auto model = this->model(c.architecture);
    Session plain = session_of(c.policy, model);
    plain.record_evictions();
    const Floats expected = feed_all(plain, tokens);
    const auto record = all_evictions(plain, *model);
    for (const HookNeeds& needs : {kEverything, HookNeeds{}}) {
      Log log;
      Session watched = session_of(c.policy, model);
      watched.record_evictions();
      ASSERT_TRUE(watched.observe(log.onlooker(), needs));
      EXPECT_TRUE(same_bytes(feed_in(watched, tokens, 23), expected));
      expect_same_record(log.left, all_evictions(watched, *model));
      for (const auto& [head, left] : log.left) EXPECT_EQ(victims_of(left), victims_of(record.at(head)));
      EXPECT_EQ(log.left.size(), record.size());
      for_each_head(*model, [&](int layer, int h) {
        EXPECT_EQ(watched.retained(layer, h), plain.retained(layer, h));
        EXPECT_TRUE(same_bytes(watched.scores(layer, h), plain.scores(layer, h)));
      });
      EXPECT_EQ(log.given.empty(), !needs.every_row);
    }
  }
}

TEST_P(Observing, AtAPromptsEndToo) {
  const Tokens prompt = random_tokens(60), answer = random_tokens(20, 2);
  for (const Case& c : {Case{"llama", "a2sf:budget=10:block=prompt"}, Case{"gemma3", "a2sf:budget=8:block=prompt"},
                        Case{"llama", "shared-budget:budget=10:block=prompt"}}) {
    SCOPED_TRACE(std::string(c.architecture) + " " + c.policy);
    const auto model = this->model(c.architecture);
    Log log;
    Session plain = session_of(c.policy, model), watched = session_of(c.policy, model);
    watched.record_evictions();
    ASSERT_TRUE(watched.observe(log.onlooker(), kEverything));
    ASSERT_TRUE(plain.feed(prompt, WantLogits::all, true) && watched.feed(prompt, WantLogits::all, true));
    EXPECT_TRUE(same_bytes(watched.logits(), plain.logits()));
    EXPECT_TRUE(same_bytes(feed_in(watched, answer, 1), feed_in(plain, answer, 20)));
    expect_same_record(log.left, all_evictions(watched, *model));
  }
}

// The record says what the row that made the token go had given it, and nothing of a row that did not see it.
TEST_P(Observing, AVictimsProbabilityIsWhatTheLastRowGaveIt) {
  for (const Case& c : kCases) {
    if (std::string(c.policy).starts_with("shared-budget")) continue;
    SCOPED_TRACE(std::string(c.architecture) + " " + c.policy);
    const auto model = this->model(c.architecture);
    Log log;
    Session session = session_of(c.policy, model);
    ASSERT_TRUE(session.observe(log.onlooker(), kEverything));
    ASSERT_TRUE(session.feed(random_tokens(70)));
    for (const auto& [head, left] : log.left) {
      for (const Eviction& eviction : left) {
        const auto given = log.given.find({head.first, head.second, eviction.step, eviction.position});
        EXPECT_NEAR(eviction.probability, given == log.given.end() ? 0 : given->second, 1e-5F);
      }
    }
  }
}

// As above, of victims that a hook named.
TEST_P(Observing, AHooksVictimsProbabilityIsWhatTheLastRowGaveIt) {
  Log log;
  Session session = session_of("shared-budget:budget=10:block=3", model());
  ASSERT_TRUE(session.observe(log.onlooker(), kEverything));
  ASSERT_TRUE(session.feed(random_tokens(40)));
  for (const auto& [head, left] : log.left) {
    for (const Eviction& eviction : left) {
      EXPECT_NEAR(eviction.probability, (log.given.at({head.first, head.second, eviction.step, eviction.position})),
                  1e-5F);
    }
  }
}

TEST_P(Observing, EveryTokenIsEitherHeldOrHasLeftOnce) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(std::string(c.architecture) + " " + c.policy);
    const auto model = this->model(c.architecture);
    Log log;
    Session session = session_of(c.policy, model);
    ASSERT_TRUE(session.observe(log.onlooker()));
    ASSERT_TRUE(session.feed(random_tokens(70)));
    for_each_head(*model, [&](int layer, int h) {
      Tokens all = session.retained(layer, h);
      for (const Eviction& eviction : log.left[{layer, h}]) all.push_back(eviction.position);
      std::sort(all.begin(), all.end());
      Tokens expected(70);
      std::iota(expected.begin(), expected.end(), 0);
      EXPECT_EQ(all, expected);
    });
  }
}

TEST_P(Observing, MayBeginAndEndAtAnyTime) {
  const Tokens tokens = random_tokens(60);
  Session plain = session_of("a2sf:budget=10", model()), watched = session_of("a2sf:budget=10", model());
  const Floats expected = feed_all(plain, tokens);
  const std::span all(tokens);
  Log log;
  Floats logits = feed_in(watched, all.first(20), 20);
  ASSERT_TRUE(watched.observe(log.onlooker()));
  for (const std::size_t from : {std::size_t{20}, std::size_t{40}}) {
    const Floats part = feed_in(watched, all.subspan(from, 20), 20);
    logits.insert(logits.end(), part.begin(), part.end());
    EXPECT_TRUE(from != 20 || watched.observe(nullptr));
  }
  EXPECT_TRUE(same_bytes(logits, expected));
  ASSERT_EQ((log.left[{0, 0}].size()), 20U);
  EXPECT_EQ((log.left[{0, 0}].front().step), 20);
  EXPECT_EQ((log.left[{0, 0}].back().step), 39);
}

// It asks for more rows than the hook does, in the middle of a sequence: the hook still sees its own.
TEST_P(Observing, TakesNothingFromAHook) {
  const auto by_probability = [](HookLayer& layer) {
    for (int h = 0; h < layer.kv_heads(); ++h) {
      HookHead& head = layer.head(h);
      while (head.held() > head.budget()) {
        int victim = -1;
        Floats sum(static_cast<std::size_t>(head.slots()));
        for (int back = 0; back < 8; ++back) {
          const auto p = head.probabilities(back, 0);
          for (std::size_t i = 0; i < p.size(); ++i) sum[i] += p[i];
        }
        for_each_held(head, [&](int slot) {
          if (!head.may_go(slot)) return;
          if (victim < 0 || sum[static_cast<std::size_t>(slot)] < sum[static_cast<std::size_t>(victim)]) victim = slot;
        });
        head.evict(victim);
      }
    }
  };
  const PolicySpec spec = hooked({by_probability, {}, {}}, {.last_rows = 8}, "budget=10:block=3");
  const Tokens start = random_tokens(30), rest = random_tokens(30, 2);
  Session plain = session_of(spec, model()), watched = session_of(spec, model());
  ASSERT_TRUE(plain.feed(start) && watched.feed(start));
  ASSERT_TRUE(watched.observe(std::make_shared<Onlooker>(), {.last_rows = 20}));
  EXPECT_TRUE(same_bytes(feed_all(watched, rest), feed_all(plain, rest)));
}

TEST_P(Observing, AResizeTellsWhoLeft) {
  for (const char* policy : {"a2sf:budget=30", "shared-budget:budget=30", "h2o:budget=30:block=4"}) {
    SCOPED_TRACE(policy);
    Log log;
    Session session = session_of(policy, model());
    session.record_evictions();
    ASSERT_TRUE(session.observe(log.onlooker(), kEverything));
    ASSERT_TRUE(session.feed(random_tokens(50)));
    all_evictions(session, *model());
    log.left.clear();
    ASSERT_TRUE(session.resize({BudgetCount{8}, {}}));
    EXPECT_FALSE(log.left.empty());
    expect_same_record(log.left, all_evictions(session, *model()));
    ASSERT_TRUE(session.feed(random_tokens(10, 2)));
  }
}

TEST_P(Observing, AForkHasNobody) {
  Log log;
  Session session = session_of("a2sf:budget=10", model());
  ASSERT_TRUE(session.observe(log.onlooker(), kEverything));
  ASSERT_TRUE(session.feed(random_tokens(30)));
  const std::size_t rows = log.given.size(), left = log.left[{0, 0}].size();
  Session copy = session.fork().value();
  ASSERT_TRUE(copy.feed(random_tokens(30, 2)));
  EXPECT_EQ(log.given.size(), rows);
  EXPECT_EQ((log.left[{0, 0}].size()), left);
}

}  // namespace
}  // namespace a2sf::test
