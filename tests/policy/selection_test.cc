#include "policy/retention.h"

#include <gtest/gtest.h>

#include "support/random_head.h"

namespace a2sf {
namespace {

constexpr int kDim = 16;

// A head that holds tokens 0, 1, 2 ... with these scores.
SequenceCache cache_with(const std::vector<float>& scores) {
  auto cache = test::one_head_cache(kDim, KvType::f32, static_cast<std::int64_t>(scores.size()));
  HeadCache& head = cache.head(0, 0);
  const std::vector<float> zeros(kDim);
  for (std::size_t i = 0; i < scores.size(); ++i) {
    head.score(head.insert(static_cast<std::int32_t>(i), zeros, zeros)) = scores[i];
  }
  return cache;
}

HeadRule rule_of(std::int64_t sink = 0, std::int64_t recent = 0, std::int64_t pin = 0) {
  return {.budget = 2, .alpha = 1, .sink = sink, .recent = recent, .pin = pin, .mode = RetentionMode::score};
}

std::vector<std::int32_t> victims_of(const HeadCache& head, const HeadRule& rule, std::int64_t count) {
  std::vector<int> slots;
  select_victims(head, rule, head.used() - 1, count, slots);
  std::vector<std::int32_t> positions;
  for (const int slot : slots) positions.push_back(head.position(slot));
  return positions;
}

TEST(Selection, WorkedExampleEvictsDThenB) {
  const auto cache = cache_with({.956F, .452F, .608F, .424F});
  EXPECT_EQ(victims_of(cache.head(0, 0), rule_of(), 2), (std::vector<std::int32_t>{3, 1}));
}

TEST(Selection, OfEqualScoresTheOlderGoes) {
  const auto cache = cache_with({.5F, .2F, .2F, .2F});
  EXPECT_EQ(victims_of(cache.head(0, 0), rule_of(), 1), (std::vector<std::int32_t>{1}));
}

TEST(Selection, SinksPinnedAndRecentTokensStay) {
  const auto cache = cache_with({.1F, .2F, .9F, .8F, .1F});
  EXPECT_EQ(victims_of(cache.head(0, 0), rule_of(1, 1, 2), 9), (std::vector<std::int32_t>{3, 2}));
}

TEST(Selection, NothingEvictableGivesNoVictim) {
  const auto cache = cache_with({.1F, .2F});
  EXPECT_TRUE(victims_of(cache.head(0, 0), rule_of(0, 2), 1).empty());
}

TEST(Selection, UsesTheCallersMemoryAgain) {
  const auto cache = cache_with({.3F, .1F, .2F});
  std::vector<int> victims;
  select_victims(cache.head(0, 0), rule_of(), 2, 2, victims);
  const int* const memory = victims.data();
  select_victims(cache.head(0, 0), rule_of(), 2, 1, victims);
  EXPECT_EQ(victims, std::vector<int>{1});
  EXPECT_EQ(victims.data(), memory);
}

TEST(Selection, FreeSlotsAreNeverChosen) {
  auto cache = cache_with({.1F, .2F, .3F});
  cache.head(0, 0).release(0);
  EXPECT_EQ(victims_of(cache.head(0, 0), rule_of(), 9), (std::vector<std::int32_t>{1, 2}));
}

}  // namespace
}  // namespace a2sf
