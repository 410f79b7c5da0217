// A hook that chooses as a2sf does is a2sf: the same victims, the same bytes.
#include "hooks/hook_support.h"

namespace a2sf::test {
namespace {

PolicySpec a2sf_by_hook(const std::string& options) {
  return hooked({.evict = evict_lowest_scores, .observe = {}, .left = {}}, {}, options);
}

struct TwinPolicies {
  const char* architecture;
  const char* options;
};

constexpr TwinPolicies kTwins[] = {
    {"llama", "budget=12"},
    {"llama", "budget=12:block=7"},
    {"llama", "budget=12:sink=2:recent=3:pin=4"},
    {"llama", "budget=12:recent=0:alpha=0.5:power=1.5"},
    {"llama", "budget=9:block=7:sink=3:recent=2"},
    {"llama", "budget=300"},
    {"llama", "budget=10:layers=1"},
    {"gemma3", "budget=8"},
    {"gemma3", "budget=8:block=7:sink=1:recent=2"},
    {"gemma3", "budget=20:pin=3"},
    {"gemma3", "budget=20:block=7:sink=2"},
};

class ScoreHook : public OnEveryDevice {};
A2SF_ON_EVERY_DEVICE(ScoreHook);

TEST_P(ScoreHook, HasTheVictimsAndBytesOfThePolicyWhateverTheChunks) {
  const Tokens tokens = random_tokens(90);
  for (const TwinPolicies& c : kTwins) {
    SCOPED_TRACE(std::string(c.architecture) + " " + c.options);
    const auto model = this->model(c.architecture);
    Session plain = session_of(std::string("a2sf:") + c.options, model);
    plain.record_evictions();
    const Floats expected = feed_all(plain, tokens);
    const auto record = all_evictions(plain, *model);
    for (const std::size_t chunk : {std::size_t{1}, std::size_t{7}, std::size_t{64}}) {
      SCOPED_TRACE(chunk);
      Session hook = session_of(a2sf_by_hook(c.options), model);
      hook.record_evictions();
      EXPECT_TRUE(same_bytes(feed_in(hook, tokens, chunk), expected));
      for_each_head(*model, [&](int layer, int h) {
        const auto mine = hook.evictions(layer, h);
        const auto found = record.find({layer, h});
        const auto theirs = found == record.end() ? std::vector<Eviction>() : found->second;
        EXPECT_EQ(victims_of(mine), victims_of(theirs)) << layer << " " << h;
        for (std::size_t i = 0; i < std::min(mine.size(), theirs.size()); ++i)
          EXPECT_EQ(mine[i].score, theirs[i].score) << layer << " " << h;
        EXPECT_EQ(hook.retained(layer, h), plain.retained(layer, h));
        EXPECT_TRUE(same_bytes(hook.scores(layer, h), plain.scores(layer, h)));
      });
    }
  }
}

TEST_P(ScoreHook, IsThePolicyAtAPromptsEndToo) {
  const Tokens prompt = random_tokens(80), answer = random_tokens(15, 3), second = random_tokens(40, 9);
  for (const TwinPolicies& c :
       {TwinPolicies{"llama", "budget=12:block=prompt"}, TwinPolicies{"llama", "budget=12:block=prompt:sink=2:pin=3"},
        TwinPolicies{"gemma3", "budget=8:block=prompt:recent=2"}, TwinPolicies{"gemma3", "budget=20:block=prompt"}}) {
    SCOPED_TRACE(std::string(c.architecture) + " " + c.options);
    const auto model = this->model(c.architecture);
    Session plain = session_of(std::string("a2sf:") + c.options, model),
            hook = session_of(a2sf_by_hook(c.options), model);
    for (Session* session : {&plain, &hook}) {
      session->record_evictions();
      ASSERT_TRUE(session->feed(prompt, WantLogits::all, true));
    }
    EXPECT_TRUE(same_bytes(hook.logits(), plain.logits()));
    EXPECT_TRUE(same_bytes(feed_in(hook, answer, 1), feed_in(plain, answer, 1)));
    for (Session* session : {&plain, &hook}) ASSERT_TRUE(session->feed(second, WantLogits::all, true));
    EXPECT_TRUE(same_bytes(hook.logits(), plain.logits()));
    for_each_head(*model, [&](int layer, int h) {
      EXPECT_EQ(victims_of(hook.evictions(layer, h)), victims_of(plain.evictions(layer, h))) << layer << " " << h;
      EXPECT_EQ(hook.retained(layer, h), plain.retained(layer, h));
    });
  }
}

// Eviction::probability is what the last row gave the victim, whoever named it.
TEST_P(ScoreHook, RecordsTheProbabilitiesOfItsVictimsAsThePolicyDoes) {
  for (const char* options : {"budget=12", "budget=12:block=7"}) {
    SCOPED_TRACE(options);
    Session plain = session_of(std::string("a2sf:") + options, model()),
            hook = session_of(a2sf_by_hook(options), model());
    for (Session* session : {&plain, &hook}) {
      session->record_evictions();
      ASSERT_TRUE(session->feed(random_tokens(40)));
    }
    const auto mine = hook.evictions(0, 0), theirs = plain.evictions(0, 0);
    ASSERT_EQ(mine.size(), theirs.size());
    for (std::size_t i = 0; i < mine.size(); ++i) EXPECT_FLOAT_EQ(mine[i].probability, theirs[i].probability);
  }
}

}  // namespace
}  // namespace a2sf::test
