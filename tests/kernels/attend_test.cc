// Every instruction set the machine has against the reference, victim by victim along one stream.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>

#include "kernels/attend_stream.h"

namespace a2sf::test {
namespace {

// An eviction says of its victim what the reference says.
void expect_same_evictions(const Outcome& cpu, const Outcome& expected) {
  for (std::size_t h = 0; h < expected.evictions.size(); ++h) {
    const auto ours = in_order(cpu.evictions[h]), theirs = in_order(expected.evictions[h]);
    ASSERT_EQ(ours.size(), theirs.size()) << "KV head " << h;
    for (std::size_t i = 0; i < ours.size(); ++i) {
      SCOPED_TRACE("KV head " + std::to_string(h) + ", eviction " + std::to_string(i));
      ASSERT_EQ(std::pair(ours[i].step, ours[i].position), std::pair(theirs[i].step, theirs[i].position));
      ASSERT_NEAR(ours[i].score, theirs[i].score, 2e-5);
      ASSERT_NEAR(ours[i].probability, theirs[i].probability, 2e-5);
    }
  }
}

void expect_same(const Outcome& cpu, const Outcome& expected) {
  ASSERT_TRUE(cpu.status && expected.status);
  expect_same_evictions(cpu, expected);
  for (std::size_t i = 0; i < cpu.out.size(); ++i) ASSERT_NEAR(cpu.out[i], expected.out[i], 2e-5) << "element " << i;
}

void check_stream(const Stream& s, unsigned seed) {
  const Input input = random_input(s, seed);
  for (const cpu::Isa isa : cpu::supported_isas()) {
    SCOPED_TRACE(name_of(isa) + ", seed " + std::to_string(seed));
    const Outcome cpu = run_cpu(s, input, isa, {1, 64});
    expect_same(cpu, run_reference(s, input, cpu.evictions));
  }
}

const HeadRule kAttendRule = score_rule(32, .98, 0, 16), kSinkRule = score_rule(32, .98, 1, 16);

TEST(Attend, A2sfMatchesTheReference) { check_stream(Stream(kAttendRule), 1); }
TEST(Attend, H2oMatchesTheReference) { check_stream(Stream(score_rule(32, 1, 0, 16)), 2); }
TEST(Attend, TovaMatchesTheReference) { check_stream(Stream(score_rule(32, 0, 0, 0)), 3); }
TEST(Attend, SinksAndPinsMatchTheReference) { check_stream(Stream(pinned(score_rule(32, .9, 4, 8), 6)), 4); }
TEST(Attend, BlocksMatchTheReference) { check_stream(Stream(kAttendRule, 7), 5); }
TEST(Attend, FullMatchesTheReference) { check_stream(Stream(kAll), 6); }
TEST(Attend, OracleMatchesTheReference) { check_stream(Stream(oracle_rule(20)), 7); }

TEST(Attend, AThresholdMatchesTheReference) {
  for (const double threshold : {.01, .05}) {
    check_stream(Stream(from(threshold, kAttendRule)), 8);
    check_stream(Stream(from(threshold, raised(kAttendRule)), 7), 9);
  }
}
// What no row reaches is forgotten to the last bit, and of equal scores the older token goes.
TEST(Attend, AThresholdThatNobodyReachesLeavesTheNewestTokens) {
  Stream s(from(.999, score_rule(32, .5, 0, 4)));
  s.tokens = 3000;
  check_stream(s, 10);
  const Outcome run = run_cpu(s, random_input(s, 11), cpu::supported_isas().front(), {1, 64});
  for (const RetainedToken& token : run.store->snapshot(0, 0)) EXPECT_GE(token.position, 3000 - 32);
}
TEST(Attend, AForgettingFactorOfAHalfMatchesTheReferenceForThousandsOfRows) {
  Stream s(from(.02, score_rule(32, .5, 0, 4)), 5);
  s.tokens = 3000;
  check_stream(s, 12);
}

// The two options of the score rule, one by one and together.
class ScoreOptions : public testing::TestWithParam<HeadRule> {
 protected:
  static HeadRule with_options(HeadRule rule) {
    rule.power = GetParam().power;
    rule.value_weight = GetParam().value_weight;
    return rule;
  }
};

TEST_P(ScoreOptions, MatchTheReferenceForEveryAlpha) {
  for (const double alpha : {0.0, .5, .98, 1.0}) check_stream(Stream(with_options(score_rule(32, alpha, 1, 16))), 30);
}

TEST_P(ScoreOptions, MatchTheReferenceWithBlocks) {
  for (const std::int64_t block : {2, 7, 40}) check_stream(Stream(with_options(kSinkRule), block), 31);
}

TEST_P(ScoreOptions, MatchTheReferenceWithSinksAndPins) {
  check_stream(Stream(with_options(pinned(score_rule(32, .9, 4, 8), 6)), 3), 32);
}

TEST_P(ScoreOptions, MatchTheReferenceInWindows) {
  Stream s(with_options(score_rule(24, .9, 2, 8)));
  for (const int window : {40, 20}) {
    s.window = window;
    check_stream(s, 33);
  }
}

TEST_P(ScoreOptions, MatchTheReferenceUnderBlockPrompt) {
  Stream s(with_options(kSinkRule));
  for (const int prompt : {200, 130}) {
    s.prompt = prompt;
    check_stream(s, 34);
  }
  s.window = 50;
  check_stream(s, 35);
}

TEST_P(ScoreOptions, MatchTheReferenceOverSeveralChunks) {
  Stream s(with_options(score_rule(300, .99, 1, 150)));
  s.tokens = 400;
  check_stream(s, 36);
  s.block = 50;
  check_stream(s, 37);
}

TEST_P(ScoreOptions, MatchTheReferenceInF32AndWithAnyGroup) {
  for (const int group : {1, 2, 5, 16}) {
    Stream s(with_options(kSinkRule));
    s.type = KvType::f32;
    s.group = group;
    s.tokens = 80;
    check_stream(s, static_cast<unsigned>(38 + group));
  }
}

INSTANTIATE_TEST_SUITE_P(Attend, ScoreOptions, testing::Values(raised({}), weighted({}), raised(weighted({}))),
                         [](const auto& instance) {
                           const HeadRule& rule = instance.param;
                           return std::string(rule.power != 1 ? "Power" : "") + (rule.value_weight ? "Weight" : "");
                         });

TEST(Attend, HeadsThatDifferMatchTheReference) {
  const std::vector<HeadRule> rules = {kAll, raised(score_rule(20, .95, 0, 5)), weighted(kSinkRule),
                                       pinned(score_rule(60, 1, 2, 30), 5)};
  Stream s(rules);
  check_stream(s, 40);
  s.window = 50;
  check_stream(s, 41);
  s.window = 0;
  s.block = 6;
  check_stream(s, 42);
  s.prompt = 120;
  check_stream(s, 43);
}

TEST(Attend, BudgetsOverSeveralChunksMatchTheReference) {
  Stream s(score_rule(300, .99, 0, 150));
  s.tokens = 400;
  check_stream(s, 8);
}

TEST(Attend, SlidingWindowsMatchTheReference) {
  Stream s(score_rule(24, .9, 2, 8));
  s.window = 40;
  check_stream(s, 9);
  s.window = 20;
  check_stream(s, 10);
}

TEST(Attend, FullWithASlidingWindowMatchesTheReference) {
  Stream s(kAll);
  s.window = 40;
  check_stream(s, 20);
}

TEST(Attend, APromptUnderBlockPromptMatchesTheReference) {
  Stream s(kAttendRule);
  for (const int prompt : {s.tokens, 130}) {
    s.prompt = prompt;
    check_stream(s, 14);
  }
}

// The last two dims are no multiple of a tile.
TEST(Attend, EveryShapeAndTypeMatchesTheReference) {
  for (const int dim : {16, 64, 80, 96, 128, 256, 20, 100}) {
    for (int group = 1; group <= 16; ++group) {
      Stream s(kAttendRule);
      s.dim = dim;
      s.group = group;
      s.tokens = 40;
      s.type = group % 2 == 0 ? KvType::f16 : KvType::f32;
      s.interleaved = group % 3 != 0;
      SCOPED_TRACE("dim " + std::to_string(dim) + ", group " + std::to_string(group));
      check_stream(s, static_cast<unsigned>(dim + group));
    }
  }
}

RC_GTEST_PROP(Attend, StreamsKeepTheRules, ()) {
  const auto budget = *rc::gen::inRange<std::int64_t>(1, 40);
  const auto sink = *rc::gen::inRange<std::int64_t>(0, budget + 1);
  const auto recent = *rc::gen::inRange<std::int64_t>(0, budget - sink + 1);
  const auto block = *rc::gen::inRange<std::int64_t>(1, 9);
  HeadRule rule = score_rule(budget, *rc::gen::inRange(0, 101) / 100.0, sink, recent);
  if (*rc::gen::arbitrary<bool>()) rule = raised(rule);
  rule.value_weight = sink > 0 && *rc::gen::arbitrary<bool>();
  Stream s(rule, block);
  s.dim = 16;
  s.tokens = 90;
  const Input input = random_input(s, static_cast<unsigned>(*rc::gen::inRange(0, 1 << 30)));
  const Outcome a = run_cpu(s, input, cpu::supported_isas().front(), {1, 90});
  const Outcome b = run_cpu(s, input, cpu::supported_isas().front(), {2, *rc::gen::inRange(1, 90)});
  RC_ASSERT(a.out == b.out);  // byte for byte, whatever the chunks and threads
  RC_ASSERT(a.head(0).occupied() < budget + block);
  for (const Eviction& e : a.evictions[0]) {
    RC_ASSERT(e.position >= sink);
    RC_ASSERT(e.position <= e.step - recent);
  }
}

TEST(Attend, ALargeEnoughBudgetIsFullAttention) {
  const Stream bounded(score_rule(200, .9, 0, 0)), full(kAll);
  const Input input = random_input(full, 12);
  EXPECT_EQ(run_reference(bounded, input).out, run_reference(full, input).out);
  EXPECT_TRUE(run_reference(bounded, input).evictions[0].empty());
}

TEST(Attend, LocalKeepsTheNewest) {
  const Stream s(score_rule(32, 0, 0, 32));
  const Outcome outcome = run_cpu(s, random_input(s, 13), cpu::supported_isas().front(), {1, 64});
  EXPECT_FALSE(outcome.evictions[0].empty());
  for (const Eviction& e : outcome.evictions[0]) EXPECT_EQ(e.position, e.step - 32);
}

}  // namespace
}  // namespace a2sf::test
