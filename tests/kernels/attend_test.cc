// Every instruction set the machine has against the reference, victim by victim along one stream.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>
#include <functional>
#include <numbers>

#include "kernels/cpu/attend.h"
#include "kernels/cpu/isa.h"
#include "kernels/reference/attend.h"
#include "support/random_head.h"

namespace a2sf {
namespace {

// One sequence, fed row by row or in chunks.
struct Stream {
  int kv_heads = 1, group = 3, dim = 64, tokens = 200, window = 0;
  KvType type = KvType::f16;
  bool interleaved = true;    // rotation
  bool whole_prompt = false;  // block = prompt: the whole stream is one
  Retention retention;
  std::int64_t slots;

  int q_columns() const { return kv_heads * group * dim; }
  int kv_columns() const { return kv_heads * dim; }
  SequenceCache cache() const {
    const bool ring = window > 0 && retention.mode == RetentionMode::all;
    const SlotPlan plan = ring                         ? SlotPlan::ring(window + kWindowRows)
                          : whole_prompt || slots == 0 ? SlotPlan()
                                                       : SlotPlan::bounded(slots);
    return SequenceCache(host_memory(), {1, kv_heads, dim, type}, SlotPlans(static_cast<std::size_t>(kv_heads), plan));
  }
  // Quarter turns are exact: rounded to f16, keys must be those of the reference to the bit.
  std::vector<double> angles() const {
    std::vector<double> angles;
    for (int i = 0; i < dim / 2; ++i) angles.push_back(type == KvType::f16 ? i * std::numbers::pi / 2 : 1 / (1.0 + i));
    return angles;
  }

  Stream(RetentionMode mode, HeadRule rule, std::int64_t block = 1, std::int64_t pin = 0)
      : slots(mode == RetentionMode::score ? rule.budget + block : 0) {
    retention.mode = mode;
    retention.block = block;
    retention.pin = pin;
    retention.rules.assign(4, rule);
  }
};

struct Input {
  std::vector<float> q, k, v;  // [tokens][columns]
};

Input random_input(const Stream& s, unsigned seed) {
  std::mt19937 random(seed);
  const auto q = static_cast<std::size_t>(s.tokens * s.q_columns()),
             kv = static_cast<std::size_t>(s.tokens * s.kv_columns());
  return {test::random_vector(random, q), test::random_vector(random, kv), test::random_vector(random, kv)};
}

struct Outcome {
  std::vector<float> out;
  std::vector<Eviction> evictions;  // head by head
  SequenceCache cache;
  Status status{};
};

Outcome run_cpu(const Stream& s, Input input, const std::string& isa, int threads, int chunk) {
  ThreadPool pool(threads);
  SpanFailures failures;
  cpu::Attention attention(pool, *cpu::find_row_kernels(isa), failures);
  Outcome outcome{std::vector<float>(input.q.size()), {}, s.cache()};
  std::vector<std::vector<Eviction>> log(static_cast<std::size_t>(s.kv_heads));
  const std::vector<std::int32_t> ids(static_cast<std::size_t>(s.tokens));
  const auto angles = s.angles();
  const RopeTable rope{angles, 1, s.interleaved};
  for (int first = 0; first < s.tokens; first += chunk) {
    const int rows = std::min(chunk, s.tokens - first);
    EXPECT_TRUE(outcome.cache.make_room(rows));
    const Span span{&outcome.cache,
                    &s.retention,
                    0,
                    rows,
                    first,
                    s.whole_prompt,
                    s.whole_prompt && first + rows == s.tokens,
                    ids,
                    &log};
    const Step step{std::span(ids).first(static_cast<std::size_t>(rows)), std::span(&span, 1)};
    failures.begin(step);
    attention.begin(step, {std::span(&rope, 1), s.kv_heads * s.group});
    const int q = s.q_columns(), kv = s.kv_columns();
    attention.attend({0,
                      s.kv_heads * s.group,
                      s.kv_heads,
                      s.dim,
                      s.window,
                      .125F,
                      0,
                      {input.q.data() + first * q, q},
                      {input.k.data() + first * kv, kv},
                      {input.v.data() + first * kv, kv},
                      {outcome.out.data() + first * q, q}});
    failures.end(std::span(&outcome.status, 1));
    if (!outcome.status) break;
  }
  for (const auto& head : log) outcome.evictions.insert(outcome.evictions.end(), head.begin(), head.end());
  return outcome;
}

// The reference along the same stream of one KV head; at a near tie it takes the victim of `other`.
Outcome run_reference(const Stream& s, Input input, const std::vector<Eviction>& other) {
  Outcome outcome{std::vector<float>(input.q.size()), {}, s.cache()};
  const auto dim = static_cast<std::size_t>(s.dim), q_size = dim * static_cast<std::size_t>(s.group);
  const auto angles = s.angles();
  const RopeTable rope{angles, 1, s.interleaved};
  for (std::size_t t = 0; t < static_cast<std::size_t>(s.tokens); ++t) {
    EXPECT_TRUE(outcome.cache.make_room(1));
    std::span q(input.q.data() + t * q_size, q_size), k(input.k.data() + t * dim, dim),
        v(input.v.data() + t * dim, dim);
    for (std::size_t g = 0; g < static_cast<std::size_t>(s.group); ++g)
      reference::rotate(q.subspan(g * dim, dim), rope, static_cast<std::int64_t>(t));
    reference::rotate(k, rope, static_cast<std::int64_t>(t));
    std::vector<std::int32_t> follow;
    for (const Eviction& e : other) {
      if (e.step == static_cast<std::int32_t>(t)) follow.push_back(e.position);
    }
    const bool ends = s.whole_prompt && static_cast<int>(t) == s.tokens - 1;
    const auto victims =
        reference::attend({&outcome.cache.head(0, 0), &s.retention, &s.retention.rules[0], static_cast<std::int64_t>(t),
                           s.group, s.dim, s.window, .125F, !s.whole_prompt || ends, ends, q, k, v,
                           std::span(outcome.out).subspan(t * q_size, q_size), &follow});
    if (!victims) {
      outcome.status = fail(ErrorKind::bad_input, std::to_string(t));
      break;
    }
    for (const std::int32_t victim : *victims) outcome.evictions.push_back({victim, static_cast<std::int32_t>(t)});
  }
  return outcome;
}

// Victims of one step are a set: with block > 1 their order may differ at near ties.
std::vector<std::pair<std::int32_t, std::int32_t>> in_order(const std::vector<Eviction>& evictions) {
  std::vector<std::pair<std::int32_t, std::int32_t>> pairs;
  for (const Eviction& e : evictions) pairs.emplace_back(e.step, e.position);
  std::sort(pairs.begin(), pairs.end());
  return pairs;
}

void expect_same(const Outcome& cpu, const Outcome& expected) {
  ASSERT_TRUE(cpu.status && expected.status);
  EXPECT_EQ(in_order(cpu.evictions), in_order(expected.evictions));
  for (std::size_t i = 0; i < cpu.out.size(); ++i) ASSERT_NEAR(cpu.out[i], expected.out[i], 2e-5) << "element " << i;
}

void check(const Stream& s, unsigned seed) {
  const Input input = random_input(s, seed);
  for (const std::string& isa : cpu::supported_isas()) {
    SCOPED_TRACE(isa + ", seed " + std::to_string(seed));
    const Outcome cpu = run_cpu(s, input, isa, 1, 64);
    expect_same(cpu, run_reference(s, input, cpu.evictions));
  }
}

constexpr HeadRule kRule{32, .98, 0, 16};

TEST(Attend, A2sfMatchesTheReference) { check(Stream(RetentionMode::score, kRule), 1); }
TEST(Attend, H2oMatchesTheReference) { check(Stream(RetentionMode::score, {32, 1, 0, 16}), 2); }
TEST(Attend, TovaMatchesTheReference) { check(Stream(RetentionMode::score, {32, 0, 0, 0}), 3); }
TEST(Attend, SinksAndPinsMatchTheReference) { check(Stream(RetentionMode::score, {32, .9, 4, 8}, 1, 6), 4); }
TEST(Attend, BlocksMatchTheReference) { check(Stream(RetentionMode::score, kRule, 7), 5); }
TEST(Attend, FullMatchesTheReference) { check(Stream(RetentionMode::all, {INT32_MAX, 0, 0, 0}), 6); }
TEST(Attend, IdealMatchesTheReference) { check(Stream(RetentionMode::ideal, {20, 0, 0, 0}), 7); }

TEST(Attend, BudgetsOverSeveralChunksMatchTheReference) {
  Stream s(RetentionMode::score, {300, .99, 0, 150});
  s.tokens = 400;
  check(s, 8);
}

TEST(Attend, SlidingWindowsMatchTheReference) {
  Stream s(RetentionMode::score, {24, .9, 2, 8});
  s.window = 40;
  check(s, 9);
  s.window = 20;
  check(s, 10);
}

TEST(Attend, FullWithASlidingWindowMatchesTheReference) {
  Stream s(RetentionMode::all, {INT32_MAX, 0, 0, 0});
  s.window = 40;
  check(s, 20);
}

TEST(Attend, APromptUnderBlockPromptMatchesTheReference) {
  Stream s(RetentionMode::score, kRule);
  s.whole_prompt = true;
  check(s, 14);
}

// The last two dims are no multiple of a tile.
TEST(Attend, EveryShapeAndTypeMatchesTheReference) {
  for (const int dim : {16, 64, 80, 96, 128, 256, 20, 100}) {
    for (int group = 1; group <= 16; ++group) {
      Stream s(RetentionMode::score, kRule);
      s.dim = dim;
      s.group = group;
      s.tokens = 40;
      s.type = group % 2 == 0 ? KvType::f16 : KvType::f32;
      s.interleaved = group % 3 != 0;
      SCOPED_TRACE("dim " + std::to_string(dim) + ", group " + std::to_string(group));
      check(s, static_cast<unsigned>(dim + group));
    }
  }
}

RC_GTEST_PROP(Attend, StreamsKeepTheRules, ()) {
  const auto budget = *rc::gen::inRange<std::int64_t>(1, 40);
  const auto sink = *rc::gen::inRange<std::int64_t>(0, budget + 1);
  const auto recent = *rc::gen::inRange<std::int64_t>(0, budget - sink + 1);
  const auto block = *rc::gen::inRange<std::int64_t>(1, 9);
  const double alpha = *rc::gen::inRange(0, 101) / 100.0;
  Stream s(RetentionMode::score, {budget, alpha, sink, recent}, block);
  s.dim = 16;
  s.tokens = 90;
  const Input input = random_input(s, static_cast<unsigned>(*rc::gen::inRange(0, 1 << 30)));
  const Outcome a = run_cpu(s, input, cpu::supported_isas().front(), 1, 90);
  const Outcome b = run_cpu(s, input, cpu::supported_isas().front(), 2, *rc::gen::inRange(1, 90));
  RC_ASSERT(a.out == b.out);  // byte for byte, whatever the chunks and threads
  RC_ASSERT(a.cache.head(0, 0).occupied() < budget + block);
  for (const Eviction& e : a.evictions) {
    RC_ASSERT(e.position >= sink);
    RC_ASSERT(e.position <= e.step - recent);
  }
}

void expect_same_bytes(const Outcome& a, const Outcome& b) {
  EXPECT_EQ(a.out, b.out);
  EXPECT_EQ(in_order(a.evictions), in_order(b.evictions));
  for (int h = 0; h < a.cache.shape().kv_heads; ++h) {
    const HeadCache &x = a.cache.head(0, h), &y = b.cache.head(0, h);
    const auto slots = x.slots_by_position(), same = y.slots_by_position();
    ASSERT_EQ(slots.size(), same.size());
    for (std::size_t i = 0; i < slots.size(); ++i) {
      ASSERT_EQ(x.position(slots[i]), y.position(same[i]));
      ASSERT_EQ(x.score(slots[i]), y.score(same[i]));
    }
  }
}

// Rows are taken in tiles and heads are shared out over the threads; neither may show.
void check_bytes(Stream s, unsigned seed) {
  s.kv_heads = 3;
  const Input input = random_input(s, seed);
  for (const std::string& isa : cpu::supported_isas()) {
    SCOPED_TRACE(isa + ", seed " + std::to_string(seed));
    const Outcome row_by_row = run_cpu(s, input, isa, 1, 1);
    for (const auto& [threads, chunk] : {std::pair{1, 64}, {2, 64}, {2, 7}, {4, s.tokens}}) {
      SCOPED_TRACE(std::to_string(threads) + " threads, chunks of " + std::to_string(chunk));
      expect_same_bytes(run_cpu(s, input, isa, threads, chunk), row_by_row);
    }
  }
}

TEST(AttendTiles, FullAttentionGivesTheBytesOfSingleRows) {
  Stream s(RetentionMode::all, {INT32_MAX, 0, 0, 0});
  s.tokens = 600;
  check_bytes(s, 15);
}

// The ring is shorter than the stream, and longer than a chunk of slots in the second case.
TEST(AttendTiles, ASlidingWindowUnderFullGivesTheBytesOfSingleRows) {
  Stream s(RetentionMode::all, {INT32_MAX, 0, 0, 0});
  s.tokens = 600;
  for (const int window : {1, 40, 250}) {
    s.window = window;
    check_bytes(s, 21);
  }
}

TEST(AttendTiles, APromptUnderBlockPromptGivesTheBytesAndScoresOfSingleRows) {
  Stream s(RetentionMode::score, {100, .99, 0, 50});
  s.whole_prompt = true;
  s.tokens = 600;
  check_bytes(s, 16);
}

TEST(AttendTiles, BlocksGiveTheBytesAndVictimsOfSingleRows) {
  for (const std::int64_t block : {1, 5, 30}) check_bytes(Stream(RetentionMode::score, {40, .95, 2, 20}, block), 17);
}

TEST(AttendTiles, ABudgetOverSeveralChunksGivesTheBytesOfSingleRows) {
  Stream s(RetentionMode::score, {300, .99, 0, 150}, 9);
  s.tokens = 400;
  s.group = 7;
  check_bytes(s, 18);
}

TEST(AttendTiles, AnEnormousValueDoesNotReachEarlierRows) {
  Stream s(RetentionMode::all, {INT32_MAX, 0, 0, 0});
  s.tokens = 30;
  Input input = random_input(s, 19);
  const std::string isa = cpu::supported_isas().front();
  const Outcome before = run_cpu(s, input, isa, 1, s.tokens);
  std::fill(input.v.end() - s.dim, input.v.end(), 1e9F);
  const Outcome after = run_cpu(s, input, isa, 1, s.tokens);
  const auto earlier = before.out.size() - static_cast<std::size_t>(s.q_columns());
  EXPECT_TRUE(
      std::equal(before.out.begin(), before.out.begin() + static_cast<std::ptrdiff_t>(earlier), after.out.begin()));
}

TEST(Attend, ALongRowGivesTheSameBytesOnAnyNumberOfThreads) {
  Stream s(RetentionMode::all, {INT32_MAX, 0, 0, 0});
  s.tokens = 1100;
  const Input input = random_input(s, 11);
  const Outcome chunked = run_cpu(s, input, cpu::supported_isas().front(), 1, 64);
  const Outcome single = run_cpu(s, input, cpu::supported_isas().front(), 3, 1);
  EXPECT_EQ(chunked.out, single.out);
}

TEST(Attend, ALargeEnoughBudgetIsFullAttention) {
  const Stream bounded(RetentionMode::score, {200, .9, 0, 0}), full(RetentionMode::all, {INT32_MAX, 0, 0, 0});
  const Input input = random_input(full, 12);
  EXPECT_EQ(run_reference(bounded, input, {}).out, run_reference(full, input, {}).out);
  EXPECT_TRUE(run_reference(bounded, input, {}).evictions.empty());
}

// --- Numbers that are not finite ---

struct Spoiled {
  const char* name;
  std::function<void(const Stream&, Input&)> spoil;
};

constexpr int kSpoiledRow = 75;  // beyond the budget: something would have to be evicted

float* at(std::vector<float>& values, int columns) { return values.data() + kSpoiledRow * columns; }

class NotFinite : public testing::TestWithParam<Spoiled> {};

// Budgets of 15 leave no room in the last tile of slots for a token that is not evicted.
TEST_P(NotFinite, EndsTheSequenceAtItsRowInEveryMode) {
  std::vector<Stream> streams = {Stream(RetentionMode::score, {15, .9, 0, 7}),
                                 Stream(RetentionMode::score, {15, .9, 0, 7}, 8),
                                 Stream(RetentionMode::all, {INT32_MAX, 0, 0, 0}),
                                 Stream(RetentionMode::ideal, {20, 0, 0, 0}), Stream(RetentionMode::score, kRule)};
  streams.back().whole_prompt = true;
  for (Stream& s : streams) {
    s.tokens = 120;
    s.type = KvType::f32;
    Input input = random_input(s, 23);
    GetParam().spoil(s, input);
    const Outcome reference = run_reference(s, input, {});
    ASSERT_FALSE(reference.status);
    EXPECT_EQ(reference.status.error().message, std::to_string(kSpoiledRow));
    for (const std::string& isa : cpu::supported_isas()) {
      for (const auto& [threads, chunk] : {std::pair{1, 1}, {2, 64}, {3, 120}}) {
        const Outcome cpu = run_cpu(s, input, isa, threads, chunk);
        ASSERT_FALSE(cpu.status) << isa << ", chunks of " << chunk;
        EXPECT_EQ(cpu.status.error().message,
                  "attention is not finite at position 75, layer 0, KV head 0: this sequence cannot go on");
        const HeadCache& head = cpu.cache.head(0, 0);
        EXPECT_LE(head.used(), head.room());
        for (const int slot : head.slots_by_position()) EXPECT_TRUE(std::isfinite(head.score(slot)));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Attend, NotFinite,
    testing::Values(Spoiled{"AKeyThatIsNaN", [](const Stream& s, Input& i) { *at(i.k, s.kv_columns()) = NAN; }},
                    Spoiled{"AnInfiniteValue", [](const Stream& s, Input& i) { *at(i.v, s.kv_columns()) = INFINITY; }},
                    Spoiled{"AQueryThatIsNaN", [](const Stream& s, Input& i) { *at(i.q, s.q_columns()) = NAN; }},
                    Spoiled{"ALogitThatOverflows",
                            [](const Stream& s, Input& i) {
                              std::fill_n(at(i.q, s.q_columns()), s.q_columns(), 1e30F);
                              std::fill_n(at(i.k, s.kv_columns()), s.kv_columns(), 1e30F);
                            }}),
    [](const auto& instance) { return std::string(instance.param.name); });

// One long row is shared out over the threads.
TEST(Attend, ALongRowThatIsNotFiniteEndsItsSequence) {
  Stream s(RetentionMode::all, {INT32_MAX, 0, 0, 0});
  s.tokens = 700;
  Input input = random_input(s, 24);
  input.q[static_cast<std::size_t>(650 * s.q_columns())] = NAN;
  const Outcome outcome = run_cpu(s, input, cpu::supported_isas().front(), 2, 1);
  ASSERT_FALSE(outcome.status);
  EXPECT_NE(outcome.status.error().message.find("position 650"), std::string::npos);
}

// Whatever a cache was told to keep: a token without a slot is an error, not a write beyond the last one.
TEST(Attend, ATokenWithoutASlotEndsItsSequence) {
  Stream s(RetentionMode::score, {15, .9, 8, 16});  // protects more than there are slots for, as no spec can
  s.tokens = 60;
  for (const int chunk : {1, 60}) {
    const Outcome outcome = run_cpu(s, random_input(s, 25), cpu::supported_isas().front(), 2, chunk);
    ASSERT_FALSE(outcome.status);
    EXPECT_EQ(outcome.status.error().message,
              "no token could be evicted before position 16, layer 0, KV head 0: this sequence cannot go on");
    EXPECT_LE(outcome.cache.head(0, 0).used(), 16);
  }
}

TEST(Attend, LocalKeepsTheNewest) {
  const Stream s(RetentionMode::score, {32, 0, 0, 32});
  for (const Eviction& e : run_cpu(s, random_input(s, 13), cpu::supported_isas().front(), 1, 64).evictions) {
    EXPECT_EQ(e.position, e.step - 32);
  }
}

}  // namespace
}  // namespace a2sf
