// Shadows: other caches that are given what a sequence computes.
#include "hooks/hook_support.h"
#include "kernels/rows.h"
#include "model/model_parts.h"

namespace a2sf::test {
namespace {

PolicySpec policy(const std::string& text) { return parse_policy(text).value(); }

// The attention outputs of the sequence and of its shadow: by layer and position.
struct Outputs {
  std::map<HeadKey, Floats> of_sequence, of_shadow;

  std::shared_ptr<Onlooker> onlooker() {
    const auto onlooker = std::make_shared<Onlooker>();
    onlooker->on_outputs = [this](const ShadowRow& row) {
      const HeadKey at{row.layer, static_cast<int>(row.position)};
      EXPECT_EQ(row.output.size(), std::size_t{kHeads * kHeadDim});
      EXPECT_FALSE(of_sequence.contains(at)) << "each row once";
      of_sequence[at] = Floats(row.output.begin(), row.output.end());
      of_shadow[at] = Floats(row.shadow.begin(), row.shadow.end());
    };
    return onlooker;
  }
};

class Shadowing : public OnEveryDevice {};
A2SF_ON_EVERY_DEVICE(Shadowing);

TEST_P(Shadowing, TheSamePolicyGivesTheSameOutputs) {
  for (const auto& [architecture, text] : {std::pair{"llama", "full"}, std::pair{"llama", "a2sf:budget=10"},
                                           std::pair{"llama", "shared-budget:budget=10:block=3"},
                                           std::pair{"gemma3", "a2sf:budget=8:block=2"}, std::pair{"gemma3", "full"}}) {
    SCOPED_TRACE(std::string(architecture) + " " + text);
    const auto model = this->model(architecture);
    Outputs outputs;
    Session plain = session_of(text, model), shadowed = session_of(text, model);
    ASSERT_TRUE(shadowed.add_shadow(policy(text), outputs.onlooker()));
    const Tokens tokens = random_tokens(50);
    EXPECT_TRUE(same_bytes(feed_in(shadowed, tokens, 17), feed_all(plain, tokens)));
    EXPECT_EQ(outputs.of_shadow.size(), 50U * static_cast<std::size_t>(model->info().layers));
    EXPECT_EQ(outputs.of_shadow, outputs.of_sequence);
  }
}

TEST_P(Shadowing, TheResidualOfTheFirstLayerIsTheEmbedding) {
  const auto model = this->model("llama");
  const Weights& weights = model->parts().weights;
  const Tokens tokens = random_tokens(20);
  const auto onlooker = std::make_shared<Onlooker>();
  int rows = 0;
  onlooker->on_outputs = [&](const ShadowRow& row) {
    if (row.layer > 0) return;
    Floats embedding(static_cast<std::size_t>(weights.architecture.embedding));
    dequantise_row(weights.embedding, tokens[static_cast<std::size_t>(row.position)], embedding.data());
    EXPECT_EQ(Floats(row.residual.begin(), row.residual.end()), embedding);
    ++rows;
  };
  Session session = session_of("full", model);
  ASSERT_TRUE(session.add_shadow(policy("a2sf:budget=10"), onlooker));
  feed_in(session, tokens, 7);
  EXPECT_EQ(rows, 20);
}

// The first layer's queries, keys and values do not depend on the policy.
TEST_P(Shadowing, AnotherPolicyGivesWhatItsOwnSessionAttendsToInTheFirstLayer) {
  for (const auto& [architecture, text] :
       {std::pair{"llama", "a2sf:budget=10"}, std::pair{"llama", "h2o:budget=9:block=4:sink=1"},
        std::pair{"llama", "full"}, std::pair{"llama", "ideal:budget=5"}, std::pair{"llama", "shared-budget:budget=10"},
        std::pair{"gemma3", "a2sf:budget=8"}}) {
    SCOPED_TRACE(std::string(architecture) + " " + text);
    const auto model = this->model(architecture);
    Outputs of_shadow, of_itself;
    Session plain = session_of("local:budget=20", model), shadowed = session_of("local:budget=20", model);
    Session own = session_of(text, model);
    std::map<HeadKey, Tokens> seen;
    const auto onlooker = of_shadow.onlooker();
    onlooker->on_row = [&](const HookLayer& layer) {
      for (int h = 0; h < layer.kv_heads(); ++h) {
        Tokens& positions = seen[{layer.layer(), h}] = {};
        for_each_held(layer.head(h), [&](int slot) { positions.push_back(layer.head(h).position(slot)); });
        std::sort(positions.begin(), positions.end());
      }
    };
    std::map<HeadKey, Tokens> left;
    onlooker->on_left = [&](int layer, int h, const Eviction& eviction) {
      std::erase(seen[{layer, h}], eviction.position);
    };
    ASSERT_TRUE(shadowed.add_shadow(policy(text), onlooker, {.every_row = true}));
    ASSERT_TRUE(own.add_shadow(policy("full"), of_itself.onlooker()));
    const Tokens tokens = random_tokens(50);
    EXPECT_TRUE(same_bytes(feed_all(shadowed, tokens), feed_all(plain, tokens)));
    ASSERT_TRUE(own.feed(tokens));
    for (int position = 0; position < 50; ++position)
      EXPECT_TRUE(same_bytes(of_shadow.of_shadow.at({0, position}), of_itself.of_sequence.at({0, position})))
          << position;
    for (int h = 0; h < kKvHeads; ++h) EXPECT_EQ((seen[{0, h}]), own.retained(0, h));
  }
}

TEST_P(Shadowing, SeveralAtOnceEachHaveTheirOwn) {
  Outputs a, b, same;
  Session session = session_of("a2sf:budget=10", model()), neighbour = session_of("h2o:budget=10", model());
  ASSERT_TRUE(session.add_shadow(policy("full"), a.onlooker()));
  ASSERT_TRUE(session.add_shadow(policy("local:budget=4"), b.onlooker()));
  ASSERT_TRUE(neighbour.add_shadow(policy("h2o:budget=10"), same.onlooker()));
  const Tokens tokens = random_tokens(40), others = random_tokens(30, 2);
  const std::array feeds = {Feed{&session, tokens}, Feed{&neighbour, others}};
  ASSERT_TRUE(Session::step(feeds));
  EXPECT_EQ(a.of_sequence, b.of_sequence);
  EXPECT_NE(a.of_shadow, b.of_shadow);
  EXPECT_EQ(same.of_shadow, same.of_sequence);
  EXPECT_EQ(same.of_shadow.size(), 2U * 30);
}

TEST_P(Shadowing, APromptEndsForAllOfThem) {
  Outputs outputs;
  Session session = session_of("a2sf:budget=10:block=prompt", model());
  ASSERT_TRUE(session.add_shadow(policy("a2sf:budget=10:block=prompt"), outputs.onlooker()));
  ASSERT_TRUE(session.feed(random_tokens(60), WantLogits::last, true));
  ASSERT_TRUE(session.feed(random_tokens(10, 2)));
  ASSERT_TRUE(session.feed(random_tokens(30, 3), WantLogits::last, true));
  EXPECT_EQ(outputs.of_shadow, outputs.of_sequence);
}

// In layer 0 both are given what the tokens' embeddings give.
TEST_P(Shadowing, OneThatIsCutAtAPromptsEndBesideOneThatIsNot) {
  Session session = session_of("full", model()), own = session_of("a2sf:budget=10:block=prompt", model());
  std::map<HeadKey, std::vector<Eviction>> gone;
  const auto onlooker = std::make_shared<Onlooker>();
  onlooker->on_left = [&](int layer, int h, const Eviction& eviction) { gone[{layer, h}].push_back(eviction); };
  ASSERT_TRUE(session.add_shadow(policy("a2sf:budget=10:block=prompt"), onlooker));
  own.record_evictions();
  for (Session* each : {&session, &own}) {
    ASSERT_TRUE(each->feed(random_tokens(60), WantLogits::last, true));
    ASSERT_TRUE(each->feed(random_tokens(5, 2)));
  }
  for (int h = 0; h < kKvHeads; ++h) EXPECT_EQ(victims_of(gone.at({0, h})), victims_of(own.evictions(0, h)));
  EXPECT_EQ(session.retained(0, 0).size(), 65U);
}

TEST_P(Shadowing, CountsInTheMemory) {
  Session plain = session_of("a2sf:budget=10", model()), shadowed = session_of("a2sf:budget=10", model());
  Session full = session_of("full", model());
  ASSERT_TRUE(shadowed.add_shadow(policy("full"), std::make_shared<Onlooker>()));
  for (Session* session : {&plain, &shadowed, &full}) ASSERT_TRUE(session->feed(random_tokens(50)));
  EXPECT_EQ(shadowed.kv_bytes(), plain.kv_bytes() + full.kv_bytes());
  EXPECT_GE(shadowed.peak_kv_bytes(), shadowed.kv_bytes());
}

TEST_P(Shadowing, AForkHasNone) {
  Outputs outputs;
  Session session = session_of("a2sf:budget=10", model()), plain = session_of("a2sf:budget=10", model());
  ASSERT_TRUE(session.add_shadow(policy("full"), outputs.onlooker()));
  ASSERT_TRUE(session.feed(random_tokens(30)) && plain.feed(random_tokens(30)));
  Session copy = session.fork().value();
  ASSERT_TRUE(copy.feed(random_tokens(10, 2)));
  EXPECT_EQ(outputs.of_shadow.size(), 2U * 30);
  EXPECT_EQ(copy.kv_bytes(), plain.kv_bytes());
}

TEST_P(Shadowing, WhatDoesNotFitIsAnError) {
  const auto onlooker = std::make_shared<Onlooker>();
  Session session = session_of("a2sf:budget=10", model());
  EXPECT_FALSE(session.add_shadow(policy("full"), nullptr));
  EXPECT_FALSE(session.add_shadow(policy("a2sf:budget=4:sink=5"), onlooker));
  EXPECT_FALSE(session.add_shadow(policy("a2sf:budget=0.5"), onlooker)) << "a ratio of what?";
  ASSERT_TRUE(session.feed(random_tokens(1)));
  const Status late = session.add_shadow(policy("full"), onlooker);
  ASSERT_FALSE(late);
  EXPECT_NE(late.error().message.find("first token"), std::string::npos) << late.error().message;
  EXPECT_TRUE(session.feed(random_tokens(20)));
}

}  // namespace
}  // namespace a2sf::test
