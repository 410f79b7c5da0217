// A store goes over to other rules with what it knows of its tokens, and says who left.
#include <gtest/gtest.h>

#include <map>
#include <tuple>

#include "kernels/attend_stream.h"

namespace a2sf::test {
namespace {

struct Kept {
  float score, weight;
  bool operator==(const Kept&) const = default;
};

std::map<std::int32_t, Kept> kept_by(const HostStore& store, int kv_head) {
  std::map<std::int32_t, Kept> kept;
  const HeadCache& head = store.head(0, kv_head);
  for (const int slot : head.slots_by_position())
    kept[head.position(slot)] = {head.score(slot), head.number(slot, kValueWeight)};
  return kept;
}

// What goes if `budget` tokens are to stay: the lowest A w among those that may go.
std::vector<std::int32_t> lowest(const std::map<std::int32_t, Kept>& kept, const HeadRule& rule, std::int32_t now) {
  std::vector<std::tuple<float, std::int32_t>> order;
  for (const auto& [position, token] : kept) {
    if (position >= rule.sink && position <= now - rule.recent)
      order.emplace_back(rule.value_weight ? token.score * token.weight : token.score, position);
  }
  std::sort(order.begin(), order.end());
  order.resize(kept.size() - static_cast<std::size_t>(rule.budget));
  std::vector<std::int32_t> positions;
  for (const auto& [worth, position] : order) positions.push_back(position);
  return positions;
}

ResolvedRetention resolved(const Stream& s) {
  ResolvedRetention resolved;
  resolved.retention = {s.prompt > 0, s.block, s.kv_heads(), s.rules, nullptr};
  for (const HeadRule& rule : s.rules) resolved.slots.push_back(s.plan(rule, false));
  resolved.bounded_slots = resolved.slots;
  return resolved;
}

TEST(HostStore, ResizingEvictsByTheRuleOfEachHeadAndKeepsScoresAndWeights) {
  Stream s({weighted(score_rule(40, .95, 1, 10)), raised(score_rule(40, .95, 1, 10)), kAll});
  s.tokens = 120;
  Outcome run = run_cpu(s, random_input(s, 70), cpu::supported_isas().front(), {2, 64});
  ASSERT_TRUE(run.status);
  Stream smaller = s;
  for (const std::size_t h : {0, 1}) smaller.rules[h].budget = 25;
  std::vector<std::map<std::int32_t, Kept>> before;
  for (int h = 0; h < s.kv_heads(); ++h) before.push_back(kept_by(*run.store, h));
  const std::vector<std::int32_t> ids(static_cast<std::size_t>(s.tokens));
  ASSERT_TRUE(run.store->resize(resolved(smaller), ids));
  for (int h = 0; h < s.kv_heads(); ++h) {
    SCOPED_TRACE("KV head " + std::to_string(h));
    auto expected = before[static_cast<std::size_t>(h)];
    const HeadRule& rule = smaller.rules[static_cast<std::size_t>(h)];
    const auto gone = rule.mode == RetentionMode::all ? std::vector<std::int32_t>() : lowest(expected, rule, 119);
    const auto evictions = run.store->drain_evictions(0, h);
    ASSERT_EQ(evictions.size(), gone.size());
    for (std::size_t i = 0; i < gone.size(); ++i) {
      EXPECT_EQ(std::tuple(evictions[i].position, evictions[i].step, evictions[i].score, evictions[i].probability),
                std::tuple(gone[i], 119, expected[gone[i]].score, 0.0F));
      expected.erase(gone[i]);
    }
    EXPECT_EQ(kept_by(*run.store, h), expected);
    EXPECT_TRUE(run.store->drain_evictions(0, h).empty());
  }
}

// The mean of all values seen goes on, whatever the slots of its tokens are then.
TEST(HostStore, AResizedStoreWeighsOnAsIfItHadAlwaysHadRoom) {
  Stream s(weighted(score_rule(60, .95, 1, 20)));
  const Input input = random_input(s, 71);
  CpuAttention attention(s, cpu::supported_isas().front(), 1);
  std::vector<Outcome> runs;
  for (const bool resizes : {false, true}) {
    Input copy = input;
    Outcome run{std::vector<float>(input.q.size()), {}, s.store()};
    ASSERT_TRUE(attention.feed(*run.store, copy, 0, 100, run.out));
    const std::vector<std::int32_t> ids(100);
    if (resizes) {
      ASSERT_TRUE(run.store->resize(resolved(s), ids));
    }
    ASSERT_TRUE(attention.feed(*run.store, copy, 100, 100, run.out));
    runs.push_back(drained(std::move(run)));
  }
  const auto kept = kept_by(*runs[0].store, 0), resized = kept_by(*runs[1].store, 0);
  ASSERT_EQ(kept.size(), resized.size());
  for (const auto& [position, token] : kept) {
    ASSERT_TRUE(resized.contains(position));
    EXPECT_EQ(token.weight, resized.at(position).weight);
    EXPECT_NEAR(token.score, resized.at(position).score, 1e-5);  // sums over the slots have another order
  }
}

}  // namespace
}  // namespace a2sf::test
