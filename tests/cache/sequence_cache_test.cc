#include "cache/sequence_cache.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "support/random_head.h"

namespace a2sf {
namespace {

constexpr int kDim = 20;  // not a multiple of the tile: padding must not leak

std::vector<float> key_of(int position) { return std::vector<float>(kDim, static_cast<float>(position)); }

void fill(HeadCache& head, int from, int to) {
  for (int position = from; position < to; ++position) head.insert(position, key_of(position), key_of(-position));
}

class SequenceCacheOf : public testing::TestWithParam<KvType> {};

TEST_P(SequenceCacheOf, ReadsBackWhatWasInserted) {
  auto cache = test::one_head_cache(kDim, GetParam(), 301);
  HeadCache& head = cache.head(0, 0);
  fill(head, 0, 301);
  std::vector<float> x(kDim);
  for (int slot = 0; slot < 301; ++slot) {
    head.read_key(slot, x);
    EXPECT_EQ(x, key_of(slot));
    head.read_value(slot, x);
    EXPECT_EQ(x, key_of(-slot));
  }
}

INSTANTIATE_TEST_SUITE_P(Types, SequenceCacheOf, testing::Values(KvType::f16, KvType::f32));

TEST(SequenceCache, F16Saturates) {
  auto cache = test::one_head_cache(kDim, KvType::f16, 1);
  const std::vector<float> large(kDim, 1e9F), small(kDim, -1e9F);
  cache.head(0, 0).insert(0, large, small);
  std::vector<float> x(kDim);
  cache.head(0, 0).read_key(0, x);
  EXPECT_EQ(x, std::vector<float>(kDim, kMostF16));
  cache.head(0, 0).read_value(0, x);
  EXPECT_EQ(x, std::vector<float>(kDim, -kMostF16));
}

TEST(SequenceCache, AVictimsSlotIsOverwrittenAndNothingMoves) {
  auto cache = test::one_head_cache(kDim, KvType::f32, 5);
  HeadCache& head = cache.head(0, 0);
  fill(head, 0, 5);
  head.score(2) = 7;
  head.release(2);
  EXPECT_EQ(head.occupied(), 4);
  EXPECT_EQ(head.insert(5, key_of(5), key_of(5)), 2);
  EXPECT_EQ(head.score(2), 0);
  EXPECT_EQ(head.position(3), 3);
}

TEST(SequenceCache, SlotsThatWereGivenBackAreTakenTheLatestFirst) {
  auto cache = test::one_head_cache(kDim, KvType::f32, 20);
  HeadCache& head = cache.head(0, 0);
  fill(head, 0, 17);
  for (const int slot : {3, 16, 0}) head.release(slot);
  EXPECT_EQ(head.occupied(), 14);
  auto copy = cache.clone().value();
  for (HeadCache* const same : {&head, &copy.head(0, 0)}) {
    for (const int slot : {0, 16, 3, 17}) EXPECT_EQ(same->insert(20 + slot, key_of(1), key_of(1)), slot);
    EXPECT_EQ(same->occupied(), 18);
    EXPECT_FALSE(same->is_full());
  }
}

TEST(SequenceCache, ABoundedCacheIsAsLargeAsItsSlots) {
  // 32 slots (17 rounded to whole tiles) of key, value (20 padded to 32, f16), score and position.
  EXPECT_EQ(test::one_head_cache(kDim, KvType::f16, 17).bytes(), 32U * (2 * 32 * 2 + 4 + 4));
}

TEST(SequenceCache, GrowsInWholeChunks) {
  auto cache = test::one_head_cache(kDim, KvType::f16, 0);
  ASSERT_TRUE(cache.make_room(1));
  EXPECT_EQ(cache.head(0, 0).room(), kChunk);
  fill(cache.head(0, 0), 0, kChunk);
  ASSERT_TRUE(cache.make_room(1));
  EXPECT_EQ(cache.head(0, 0).room(), 2 * kChunk);
}

TEST(SequenceCache, ACloneHasTheSameBytesInMemoryOfItsOwn) {
  auto cache = test::one_head_cache(kDim, KvType::f16, 9);
  fill(cache.head(0, 0), 0, 9);
  cache.head(0, 0).release(4);
  auto copy = cache.clone().value();
  EXPECT_EQ(copy.head(0, 0).occupied(), cache.head(0, 0).occupied());
  EXPECT_EQ(std::memcmp(copy.head(0, 0).chunks()[0].keys, cache.head(0, 0).chunks()[0].keys, copy.bytes()), 0);
  copy.head(0, 0).release(0);
  EXPECT_EQ(cache.head(0, 0).position(0), 0);
}

TEST(SequenceCache, RebuildingKeepsTokensAndScoresInOrderOfPosition) {
  auto cache = test::one_head_cache(kDim, KvType::f16, 0);
  HeadCache& head = cache.head(0, 0);
  ASSERT_TRUE(cache.make_room(300));
  fill(head, 0, 300);
  for (int slot = 0; slot < 300; ++slot) {
    head.score(slot) = static_cast<float>(slot);
    if (slot % 100 != 7) head.release(slot);
  }
  const auto small = cache.rebuilt({SlotPlan::bounded(4)}).value();
  ASSERT_EQ(small.head(0, 0).used(), 3);
  for (int slot = 0; slot < 3; ++slot) {
    EXPECT_EQ(small.head(0, 0).position(slot), 7 + 100 * slot);
    EXPECT_EQ(small.head(0, 0).score(slot), static_cast<float>(7 + 100 * slot));
  }
  EXPECT_LT(small.bytes(), cache.bytes());
  EXPECT_FALSE(cache.rebuilt({SlotPlan::bounded(2)}));
}

// Memory for so many allocations.
class LittleMemory : public Memory {
 public:
  explicit LittleMemory(int allocations) : left(allocations) {}
  Result<std::byte*> allocate(std::size_t bytes) override {
    if (left == 0) return fail(ErrorKind::out_of_memory, "not enough memory");
    --left;
    ++held;
    return host_memory().allocate(bytes);
  }
  void release(std::byte* data, std::size_t bytes) override {
    --held;
    host_memory().release(data, bytes);
  }
  void copy(std::byte* to, const std::byte* from, std::size_t bytes) override { host_memory().copy(to, from, bytes); }

  int left, held = 0;
};

TEST(SequenceCache, OneThatCannotBeRebuiltOrGrownStaysAsItWas) {
  constexpr int kHeads = 3;
  LittleMemory memory(1);
  SequenceCache cache(memory, {1, kHeads, kDim, KvType::f32}, SlotPlans(kHeads));
  ASSERT_TRUE(cache.make_room(kChunk));
  for (int h = 0; h < kHeads; ++h) fill(cache.head(0, h), 0, kChunk);
  const auto rebuilt = cache.rebuilt(SlotPlans(kHeads));
  const auto grown = cache.make_room(1);
  ASSERT_FALSE(rebuilt);
  ASSERT_FALSE(grown);
  EXPECT_EQ(rebuilt.error().kind, ErrorKind::out_of_memory);
  EXPECT_EQ(grown.error().kind, ErrorKind::out_of_memory);
  EXPECT_EQ(memory.held, 1);
  for (int h = 0; h < kHeads; ++h) {
    EXPECT_EQ(cache.head(0, h).occupied(), kChunk);
    EXPECT_EQ(cache.head(0, h).room(), kChunk);
  }
  memory.left = 1;
  EXPECT_TRUE(cache.rebuilt(SlotPlans(kHeads)));
}

TEST(SequenceCache, InARingATokensSlotIsItsPositionAlsoOnceRebuilt) {
  SequenceCache cache(host_memory(), {1, 1, kDim, KvType::f32}, {SlotPlan::ring(20)});
  ASSERT_TRUE(cache.make_room(20));
  HeadCache& head = cache.head(0, 0);
  fill(head, 0, 20);
  for (const int slot : {3, 0, 1, 2}) head.release(slot);
  fill(head, 20, 23);
  EXPECT_EQ(head.position(2), 22);
  EXPECT_EQ(head.occupied(), 19);
  const auto again = cache.rebuilt({SlotPlan::ring(20)});
  ASSERT_TRUE(again);
  EXPECT_EQ(again->head(0, 0).position(2), 22);
  EXPECT_EQ(again->head(0, 0).position(3), -1);
  EXPECT_EQ(again->head(0, 0).occupied(), 19);
}

TEST(SequenceCache, ABoundedHeadTakesMemoryAsTokensComeAndNoMoreThanItsBound) {
  for (const SlotPlan& plan : {SlotPlan::bounded(700), SlotPlan::ring(700)}) {
    SequenceCache cache(host_memory(), {1, 1, kDim, KvType::f16}, {plan});
    EXPECT_EQ(cache.bytes(), 0U);
    HeadCache& head = cache.head(0, 0);
    // The third chunk would be the last one, and short: it comes with the second.
    for (const auto& [tokens, room] : {std::pair{1, 256}, {256, 256}, {257, 704}, {700, 704}}) {
      ASSERT_TRUE(cache.make_room(tokens - head.used()));
      EXPECT_EQ(head.room(), room) << tokens;
      fill(head, head.used(), tokens);
    }
    EXPECT_TRUE(head.is_full());
    ASSERT_TRUE(cache.make_room(100));
    EXPECT_EQ(head.room(), 704);
  }
}

TEST(SequenceCache, MoreThanTheMachineHasIsAnErrorWhenItIsNeeded) {
  SequenceCache cache(host_memory(), {1, 1, 128, KvType::f32}, {SlotPlan::bounded(INT64_MAX / 2)});
  const auto room = cache.make_room(std::int64_t{1} << 40);
  ASSERT_FALSE(room);
  EXPECT_EQ(room.error().kind, ErrorKind::out_of_memory);
  EXPECT_TRUE(cache.make_room(1));
}

// --- Weights of values ---

// A head whose values are weighed, and what their weights must be.
class WeighedValues : public testing::Test {
 protected:
  static SequenceCache weighing_cache(Memory& memory = host_memory()) {
    return {memory, {1, 1, kDim, KvType::f16, 1, true}, {SlotPlan::bounded(40)}};
  }
  std::vector<float> next_value() {
    values_.push_back(test::random_vector(random_, kDim));
    return values_.back();
  }
  void feed(HeadCache& head, const std::vector<float>& value) {
    const int slot = head.insert(static_cast<std::int32_t>(values_.size()) - 1, value, value);
    head.weigh(slot, value);
  }
  // |v - the mean of all values up to it|.
  double weight_of(std::int32_t position) const {
    const auto count = static_cast<std::size_t>(position) + 1;
    double squares = 0;
    for (std::size_t i = 0; i < kDim; ++i) {
      double sum = 0;
      for (std::size_t row = 0; row < count; ++row) sum += values_[row][i];
      const double distance = values_[count - 1][i] - sum / static_cast<double>(count);
      squares += distance * distance;
    }
    return std::sqrt(squares);
  }
  void expect_weights(const HeadCache& head) const {
    for (const int slot : head.slots_by_position())
      EXPECT_NEAR(head.number(slot, kValueWeight), weight_of(head.position(slot)), 1e-5) << head.position(slot);
  }

  std::mt19937 random_{5};
  std::vector<std::vector<float>> values_;  // [position]
};

TEST_F(WeighedValues, AreTheirDistancesToTheMeanOfAllThatTheHeadHasSeen) {
  auto cache = weighing_cache();
  ASSERT_TRUE(cache.make_room(40));
  HeadCache& head = cache.head(0, 0);
  for (int i = 0; i < 40; ++i) feed(head, next_value());
  EXPECT_EQ(head.number(0, kValueWeight), 0);
  expect_weights(head);
  for (int slot = 3; slot < 30; slot += 4) head.release(slot);  // the mean is also of those that have left
  for (int slot = 3; slot < 30; slot += 4) feed(head, next_value());
  expect_weights(head);
}

TEST_F(WeighedValues, StayAndGoOnInAClone) {
  auto cache = weighing_cache();
  ASSERT_TRUE(cache.make_room(40));
  for (int i = 0; i < 20; ++i) feed(cache.head(0, 0), next_value());
  auto copy = cache.clone().value();
  EXPECT_EQ(copy.bytes(), cache.bytes());
  const auto before = values_;
  for (SequenceCache* const each : {&copy, &cache}) {  // a mean of its own: one does not see the other's values
    values_ = before;
    for (int i = 0; i < 20; ++i) feed(each->head(0, 0), next_value());
    expect_weights(each->head(0, 0));
  }
}

TEST_F(WeighedValues, StayAndGoOnOnceRebuilt) {
  auto cache = weighing_cache();
  ASSERT_TRUE(cache.make_room(40));
  HeadCache& head = cache.head(0, 0);
  for (int i = 0; i < 40; ++i) feed(head, next_value());
  for (int slot = 0; slot < 40; slot += 3) head.release(slot);
  const std::vector<std::vector<int>> left_out = {{1, 7, 20}};
  auto rebuilt = cache.rebuilt({SlotPlan::bounded(50)}, left_out).value();
  EXPECT_EQ(rebuilt.head(0, 0).occupied(), head.occupied() - 3);
  ASSERT_TRUE(rebuilt.make_room(10));
  for (int i = 0; i < 10; ++i) feed(rebuilt.head(0, 0), next_value());
  expect_weights(rebuilt.head(0, 0));
}

TEST_F(WeighedValues, ACacheThatHasMemoryButNoTokensYetIsRebuiltAndCloned) {
  auto cache = weighing_cache();
  ASSERT_TRUE(cache.make_room(10));
  auto rebuilt = cache.rebuilt({SlotPlan::bounded(50)});
  ASSERT_TRUE(rebuilt);
  auto copy = cache.clone();
  ASSERT_TRUE(copy);
  for (SequenceCache* const each : {&*rebuilt, &*copy}) {
    values_.clear();
    ASSERT_TRUE(each->make_room(10));
    for (int i = 0; i < 10; ++i) feed(each->head(0, 0), next_value());
    expect_weights(each->head(0, 0));
  }
}

TEST_F(WeighedValues, NoMemoryForTheMeanLeavesTheCacheAsItWas) {
  for (const int allocations : {0, 1}) {
    LittleMemory memory(allocations);
    auto cache = weighing_cache(memory);
    EXPECT_FALSE(cache.make_room(10));
    EXPECT_EQ(cache.head(0, 0).room(), 0);
    memory.left = 2;
    ASSERT_TRUE(cache.make_room(10));
    values_.clear();
    for (int i = 0; i < 10; ++i) feed(cache.head(0, 0), next_value());
    expect_weights(cache.head(0, 0));
  }
}

}  // namespace
}  // namespace a2sf
