#include <a2sf/hook.h>
#include <a2sf/profile.h>
#include <a2sf/session.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "support/tiny_model.h"

namespace a2sf {
namespace {

constexpr std::int64_t kMostTokens = 300;  // more than one chunk of a cache that grows

struct Loaded {
  std::shared_ptr<const Model> model;
  ModelInfo info;
};

Loaded load(const TinyModel& sizes) {
  const std::string path = write_tiny_model(sizes, temporary_path("cache_size.gguf"));
  Loaded loaded{Model::load(path).value(), inspect(path)->model.value()};
  std::filesystem::remove(path);
  return loaded;
}

void expect_what_a_session_allocates(const Loaded& loaded, const PolicySpec& policy, KvType type) {
  const std::vector<std::int32_t> tokens(kMostTokens, 1);
  for (const std::int64_t most_tokens : {std::int64_t{0}, kMostTokens}) {
    const SessionOptions options{policy, type, kMostTokens, most_tokens};
    auto session = Session::create(loaded.model, options).value();
    EXPECT_EQ(session.kv_bytes(), 0U);
    ASSERT_TRUE(session.feed(tokens, WantLogits::none, policy.heeds_prompts()));
    EXPECT_EQ(cache_cost(loaded.info, options, kMostTokens).value(), session.peak_kv_bytes()) << to_string(policy);
  }
}

class CacheCost : public testing::TestWithParam<std::string> {};

TEST_P(CacheCost, IsWhatASessionAllocatesAtMost) {
  TinyModel sizes;
  sizes.architecture = GetParam();
  sizes.window = 40;
  const Loaded loaded = load(sizes);
  for (const char* text :
       {"full", "a2sf:budget=20", "a2sf:budget=1000", "h2o:budget=20:block=9", "local:budget=10%",
        "a2sf:budget=20:block=prompt", "shared-budget:budget=20", "ideal:budget=20",
        "shared-budget:budget=20:block=prompt", "a2sf:budget=20:layers=1", "a2sf:budget=20:sink=1:value-weight=on",
        "a2sf:budget=20:sink=1:value-weight=on:block=prompt", "snapkv:budget=20", "adakv:budget=20",
        "pyramidkv:budget=40", "expected:budget=20", "a2sf:budget=20:cold=all", "a2sf:budget=20:cold=50:block=prompt",
        "a2sf:budget=20:sink=1:value-weight=on:cold=all"}) {
    for (const KvType type : {KvType::f16, KvType::f32})
      expect_what_a_session_allocates(loaded, parse_policy(text).value(), type);
  }
}

INSTANTIATE_TEST_SUITE_P(Architectures, CacheCost, testing::Values("llama", "gemma3", "gpt2"),
                         [](const auto& architecture) { return architecture.param; });

TEST(CacheCostOfRaggedHeads, IsWhatASessionAllocatesAtMost) {
  const Loaded loaded = load({});
  PolicySpec table = parse_policy("a2sf").value();
  table.budget.budget = BudgetTable{{{4, 20}, {9, 300}}};
  expect_what_a_session_allocates(loaded, table, KvType::f16);
  PolicySpec shared = parse_policy("a2sf:budget=50").value();
  ASSERT_TRUE(share_by(shared, std::make_shared<const Profile>(Profile{.tables = {{.shares = {{1, 9}, {3, 2}}}}})));
  expect_what_a_session_allocates(loaded, shared, KvType::f16);
}

// Numbers beside each token and queries of the last rows are memory of the cache too.
TEST(CacheCostOfAHook, IsWhatASessionAllocatesAtMost) {
  struct Evicting : Hook {
    void evict(HookLayer& layer) override {
      for (int h = 0; h < layer.kv_heads(); ++h) {
        HookHead& head = layer.head(h);
        for (int slot = 0; head.held() > head.budget() && slot < head.slots(); ++slot) {
          if (head.may_go(slot)) head.evict(slot);
        }
      }
    }
    std::unique_ptr<Hook> clone() const override { return std::make_unique<Evicting>(); }
  };
  struct Demanding : HookFactory {
    std::string_view name() const override { return "demanding"; }
    HookNeeds needs() const override { return {.last_rows = 7, .numbers = 3}; }
    std::unique_ptr<Hook> make(const HookShape&) const override { return std::make_unique<Evicting>(); }
  };
  PolicySpec spec = parse_policy("a2sf:budget=20").value();
  spec.score = Hooked{std::make_shared<Demanding>(), {}};
  const Loaded loaded = load({});
  expect_what_a_session_allocates(loaded, spec, KvType::f16);
  spec.schedule = EvictAtPromptEnd{};
  expect_what_a_session_allocates(loaded, spec, KvType::f32);
}

// The budgets are far beyond the sequence.
TEST(CacheCostOfALargeBudget, IsThatOfTheFullCacheOfTheSequence) {
  const Loaded loaded = load({});
  for (const std::int64_t most_tokens : {std::int64_t{0}, kMostTokens}) {
    const auto cost = [&](const char* spec) {
      return cache_cost(loaded.info, {parse_policy(spec).value(), KvType::f16, 0, most_tokens}, kMostTokens).value();
    };
    EXPECT_EQ(cost("a2sf:budget=100000"), cost("full"));
    expect_what_a_session_allocates(loaded, parse_policy("a2sf:budget=100000").value(), KvType::f16);
  }
}

TEST(CacheCostOfABadSpec, IsTheErrorOfASession) {
  const SessionOptions options{parse_policy("a2sf:budget=8:sink=9").value(), KvType::f16, 0, 0};
  EXPECT_FALSE(cache_cost(load({}).info, options, kMostTokens));
}

TEST(MostTokens, AreAllThatASequenceCanHave) {
  const Loaded loaded = load({});
  auto session =
      Session::create(loaded.model, {.policy = parse_policy("a2sf:budget=8").value(), .most_tokens = 5}).value();
  const std::vector<std::int32_t> tokens(6, 1);
  ASSERT_TRUE(session.feed(std::span(tokens).first(4)));
  const Status fed = session.feed(std::span(tokens).first(2));
  ASSERT_FALSE(fed);
  EXPECT_EQ(fed.error().message, "the sequence was made for 5 tokens; it would have 6");
  EXPECT_EQ(session.position(), 4);
  EXPECT_TRUE(session.feed(std::span(tokens).first(1)));
}

}  // namespace
}  // namespace a2sf
