#include "eval/cache_size.h"

#include <a2sf/profile.h>

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "support/tiny_model.h"

namespace a2sf {
namespace {

constexpr std::int64_t kTokens = 300;  // more than one chunk of a cache that grows

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
  auto session = Session::create(loaded.model, {policy, type, kTokens}).value();
  std::vector<std::int32_t> tokens(kTokens, 1);
  ASSERT_TRUE(session.feed(tokens, WantLogits::none, policy.whole_prompt));
  EXPECT_EQ(cache_bytes(loaded.info, policy, type, kTokens).value(), session.kv_bytes()) << to_string(policy);
}

class CacheSize : public testing::TestWithParam<std::string> {};

TEST_P(CacheSize, IsWhatASessionAllocates) {
  TinyModel sizes;
  sizes.architecture = GetParam();
  sizes.window = 40;
  const Loaded loaded = load(sizes);
  for (const char* text : {"full", "a2sf:budget=20", "a2sf:budget=1000", "h2o:budget=20:block=9", "local:budget=10%",
                           "a2sf:budget=20:block=prompt", "shared-budget:budget=20", "ideal:budget=20"}) {
    for (const KvType type : {KvType::f16, KvType::f32})
      expect_what_a_session_allocates(loaded, parse_policy(text).value(), type);
  }
}

INSTANTIATE_TEST_SUITE_P(Architectures, CacheSize, testing::Values("llama", "gemma3", "gpt2"),
                         [](const auto& architecture) { return architecture.param; });

TEST(CacheSizeOfRaggedHeads, IsWhatASessionAllocates) {
  const Loaded loaded = load({});
  PolicySpec table = parse_policy("a2sf").value();
  table.budget.table = {{4, 20}, {9, 300}};
  expect_what_a_session_allocates(loaded, table, KvType::f16);
  PolicySpec shared = parse_policy("a2sf:budget=50").value();
  shared.profile = std::make_shared<const Profile>(Profile{.shares = {{1, 9}, {3, 2}}, .alphas = {}, .file = {}});
  expect_what_a_session_allocates(loaded, shared, KvType::f16);
}

TEST(CacheSizeOf, ABudgetThatASessionRefusesIsRefused) {
  EXPECT_FALSE(cache_bytes(load({}).info, parse_policy("a2sf:budget=8:sink=9").value(), KvType::f16, kTokens));
}

}  // namespace
}  // namespace a2sf
