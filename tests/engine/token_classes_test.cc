// Sessions whose tokens have classes: what a slot knows of its token goes with it.
#include <a2sf/session.h>
#include <a2sf/token_classes.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "support/devices.h"
#include "support/tiny_model.h"

namespace a2sf {
namespace {

constexpr std::int32_t kTokenIds = 128;  // of TinyModel

std::shared_ptr<const Model> classes_model(const test::Device& device, const TinyModel& sizes = {}) {
  const std::string path = write_tiny_model(sizes, temporary_path("token-classes.gguf"));
  auto model = Model::load(path, device.options).value();
  std::filesystem::remove(path);
  return model;
}

// Ids from 64 on count for nothing, and are forgotten at once.
std::shared_ptr<const TokenClasses> low_and_high(std::size_t vocabulary = kTokenIds) {
  TokenClasses classes{{{"low"}, {"high", .001, 0}}, {}, "low-and-high.json"};
  for (std::size_t id = 0; id < vocabulary; ++id) classes.class_of.push_back(id < 64 ? 0 : 1);
  return std::make_shared<const TokenClasses>(std::move(classes));
}

PolicySpec spec_of(const std::string& text, std::shared_ptr<const TokenClasses> classes = low_and_high()) {
  PolicySpec spec = parse_policy(text).value();
  std::get<Accumulate>(spec.score).classes = std::move(classes);
  return spec;
}

// Of every three tokens one is low.
std::vector<std::int32_t> some_tokens(std::size_t count) {
  std::vector<std::int32_t> tokens;
  for (std::size_t i = 0; i < count; ++i)
    tokens.push_back(static_cast<std::int32_t>(i % 3 == 0 ? i % 64 : 64 + i * 7 % 64));
  return tokens;
}

void expect_low_tokens_alone(const Session& session, std::int32_t recent_from) {
  for (int layer = 0; layer < 2; ++layer) {
    for (int head = 0; head < 2; ++head) {
      for (const std::int32_t position : session.retained(layer, head))
        EXPECT_TRUE(position % 3 == 0 || position >= recent_from) << layer << ' ' << head << ' ' << position;
    }
  }
}

class TokenClassesOn : public testing::TestWithParam<test::Device> {};

TEST_P(TokenClassesOn, DecideWhoGoesInPromptsAndAfterThem) {
  const auto model = classes_model(GetParam());
  for (const char* text :
       {"a2sf:budget=12:recent=2", "a2sf:budget=12:recent=2:block=5", "h2o:budget=12:recent=2",
        "token-class:budget=12:recent=2:block=prompt", "a2sf:budget=12:recent=2:power=1.5:value-weight=on:sink=1"}) {
    SCOPED_TRACE(text);
    Session session = Session::create(model, {.policy = spec_of(text)}).value();
    const auto tokens = some_tokens(66);
    ASSERT_TRUE(session.feed(std::span(tokens).first(45), WantLogits::last, true));
    expect_low_tokens_alone(session, 38);
    ASSERT_TRUE(session.feed(std::span(tokens).subspan(45)));
    expect_low_tokens_alone(session, 59);
  }
}

TEST_P(TokenClassesOn, GoWithTheirSlotsThroughForksAndResizes) {
  const auto model = classes_model(GetParam());
  Session session = Session::create(model, {.policy = spec_of("a2sf:budget=24:recent=2")}).value();
  const auto tokens = some_tokens(90);
  ASSERT_TRUE(session.feed(std::span(tokens).first(60)));
  Session fork = session.fork().value();
  for (Session* each : {&session, &fork}) {
    ASSERT_TRUE(each->resize({BudgetCount{8}}));
    expect_low_tokens_alone(*each, 58);
    ASSERT_TRUE(each->resize({BudgetCount{16}}));
    ASSERT_TRUE(each->feed(std::span(tokens).subspan(60)));
    expect_low_tokens_alone(*each, 80);
  }
  EXPECT_TRUE(std::equal(session.logits().begin(), session.logits().end(), fork.logits().begin()));
  EXPECT_EQ(session.scores(1, 1), fork.scores(1, 1));
}

INSTANTIATE_TEST_SUITE_P(Devices, TokenClassesOn, testing::ValuesIn(test::all_devices()),
                         [](const auto& each) { return each.param.name; });

TEST(TokenClassesOf, AnotherVocabularyAreRefusedBeforeAnythingIsRead) {
  const auto model = classes_model(test::reference_device());
  const auto session = Session::create(model, {.policy = spec_of("a2sf:budget=8", low_and_high(100))});
  ASSERT_FALSE(session);
  EXPECT_EQ(session.error().message,
            "'low-and-high.json' has classes of 100 tokens, this model 128: make one with a2sf tune -m MODEL "
            "--classes TEXT");
  Session plain = Session::create(model, {.policy = parse_policy("full").value()}).value();
  EXPECT_FALSE(plain.add_shadow(spec_of("a2sf:budget=8", low_and_high(100)), std::make_shared<ShadowObserver>(), {}));
}

TEST(TokenClassesOf, ASequenceCountInWhatItCosts) {
  const auto model = classes_model(test::reference_device());
  const SessionOptions options{.policy = spec_of("a2sf:budget=20")};
  Session session = Session::create(model, options).value();
  ASSERT_TRUE(session.feed(some_tokens(50)));
  EXPECT_EQ(cache_cost(model->info(), options, 50).value(), session.peak_kv_bytes());
  Session plain = Session::create(model, {.policy = parse_policy("a2sf:budget=20").value()}).value();
  ASSERT_TRUE(plain.feed(some_tokens(50)));
  EXPECT_EQ(session.kv_bytes() - plain.kv_bytes(), 4U * 32 * 2 * sizeof(float)) << "two numbers of 32 slots, 4 heads";
}

}  // namespace
}  // namespace a2sf
