// The bytes of a row depend on its sequence alone: not on tiles, chunks, threads or the schedule.
#include <gtest/gtest.h>

#include "kernels/attend_stream.h"

namespace a2sf::test {
namespace {

void check_bytes(const Stream& s, unsigned seed, int decoded = 0) {
  const Input input = random_input(s, seed);
  for (const cpu::Isa isa : cpu::supported_isas()) {
    SCOPED_TRACE(name_of(isa) + ", seed " + std::to_string(seed));
    const Outcome row_by_row = run_cpu(s, input, isa, {1, 1});
    for (const Feeding& feeding : {Feeding{1, 64}, {2, 64, decoded}, {2, 7}, {4, s.tokens}}) {
      SCOPED_TRACE(std::to_string(feeding.threads) + " threads, chunks of " + std::to_string(feeding.chunk));
      expect_same_bytes(run_cpu(s, input, isa, feeding), row_by_row);
    }
  }
}

// Heads are shared out over the threads.
std::vector<HeadRule> three(const HeadRule& rule) { return {rule, rule, rule}; }

TEST(AttendBytes, FullAttentionGivesTheBytesOfSingleRows) {
  Stream s(three(kAll));
  s.tokens = 600;
  check_bytes(s, 15);
}

// The ring is shorter than the stream, and longer than a chunk of slots in the second case.
TEST(AttendBytes, ASlidingWindowUnderFullGivesTheBytesOfSingleRows) {
  Stream s(three(kAll));
  s.tokens = 600;
  for (const int window : {1, 40, 250}) {
    s.window = window;
    check_bytes(s, 21);
  }
}

TEST(AttendBytes, APromptUnderBlockPromptGivesTheBytesAndScoresOfSingleRows) {
  for (const HeadRule& rule : {score_rule(100, .99, 0, 50), raised(weighted(score_rule(100, .99, 1, 50)))}) {
    Stream s(three(rule));
    s.tokens = 600;
    for (const int prompt : {600, 500}) {
      s.prompt = prompt;
      check_bytes(s, 16);
    }
  }
}

TEST(AttendBytes, BlocksGiveTheBytesAndVictimsOfSingleRows) {
  for (const std::int64_t block : {1, 5, 30}) {
    const HeadRule rule = score_rule(40, .95, 2, 20);
    for (const HeadRule& any : {rule, raised(rule), weighted(rule), raised(weighted(rule))})
      check_bytes(Stream(three(any), block), 17, 40);
  }
}

TEST(AttendBytes, ABudgetOverSeveralChunksGivesTheBytesOfSingleRows) {
  for (const HeadRule& rule : {score_rule(300, .99, 0, 150), raised(weighted(score_rule(300, .99, 1, 150)))}) {
    Stream s(three(rule), 9);
    s.tokens = 400;
    s.group = 7;
    check_bytes(s, 18);
  }
}

// A decoded row over more than 512 slots is shared out over the threads.
TEST(AttendBytes, ALongRowGivesTheSameBytesOnAnyNumberOfThreads) {
  for (const HeadRule& rule : {kAll, score_rule(700, .99, 0, 350), raised(weighted(score_rule(700, .99, 1, 350)))}) {
    Stream s(rule);
    s.tokens = 1100;
    const Input input = random_input(s, 11);
    for (const cpu::Isa isa : cpu::supported_isas()) {
      SCOPED_TRACE(name_of(isa));
      expect_same_bytes(run_cpu(s, input, isa, {1, 64}), run_cpu(s, input, isa, {3, 1}));
    }
  }
}

TEST(AttendBytes, AnEnormousValueDoesNotReachEarlierRows) {
  Stream s(kAll);
  s.tokens = 30;
  Input input = random_input(s, 19);
  const cpu::Isa isa = cpu::supported_isas().front();
  const Outcome before = run_cpu(s, input, isa, {1, s.tokens});
  std::fill(input.v.end() - s.dim, input.v.end(), 1e9F);
  const Outcome after = run_cpu(s, input, isa, {1, s.tokens});
  const auto earlier = before.out.size() - static_cast<std::size_t>(s.q_columns());
  EXPECT_TRUE(
      std::equal(before.out.begin(), before.out.begin() + static_cast<std::ptrdiff_t>(earlier), after.out.begin()));
}

// --- Heads of one layer that differ ---

std::vector<float> columns_of_head(const std::vector<float>& x, int kv_heads, int kv_head, int columns) {
  std::vector<float> part;
  for (std::size_t at = static_cast<std::size_t>(kv_head * columns); at < x.size();
       at += static_cast<std::size_t>(kv_heads * columns))
    part.insert(part.end(), x.begin() + static_cast<std::ptrdiff_t>(at),
                x.begin() + static_cast<std::ptrdiff_t>(at) + columns);
  return part;
}

// Each head of a layer gives the bytes that it gives alone, in a layer of its kind.
void check_heads(const Stream& s, unsigned seed, const std::vector<Feeding>& feedings) {
  const Input input = random_input(s, seed);
  const int n = s.kv_heads(), q = s.group * s.dim;
  for (const cpu::Isa isa : cpu::supported_isas()) {
    std::vector<Outcome> alone;
    for (int h = 0; h < n; ++h) {
      Stream single = s;
      single.rules = {s.rules[static_cast<std::size_t>(h)]};
      const Input part{columns_of_head(input.q, n, h, q), columns_of_head(input.k, n, h, s.dim),
                       columns_of_head(input.v, n, h, s.dim)};
      alone.push_back(run_cpu(single, part, isa, {1, 16}));
    }
    for (const Feeding& feeding : feedings) {
      SCOPED_TRACE(name_of(isa) + ", " + std::to_string(feeding.threads) + " threads, chunks of " +
                   std::to_string(feeding.chunk) + ", decoded " + std::to_string(feeding.decoded));
      const Outcome together = run_cpu(s, input, isa, feeding);
      ASSERT_TRUE(together.status);
      for (int h = 0; h < n; ++h) {
        const Outcome& single = alone[static_cast<std::size_t>(h)];
        EXPECT_EQ(columns_of_head(together.out, n, h, q), single.out) << "KV head " << h;
        expect_same_head(together, h, single, 0);
      }
    }
  }
}

const std::vector<HeadRule> kMixed = {kAll, score_rule(40, .95, 2, 20), raised(weighted(score_rule(25, .9, 1, 5))),
                                      pinned(score_rule(60, 1, 0, 30), 7)};

TEST(AttendMixedHeads, GiveTheBytesOfHeadsAlone) {
  check_heads(Stream(kMixed), 50, {{1, 1}, {2, 64}, {3, 7}, {2, 200}, {2, 64, 50}});
  check_heads(Stream(kMixed, 6), 51, {{1, 1}, {2, 64, 50}});
}

TEST(AttendMixedHeads, GiveTheBytesOfHeadsAloneInAWindow) {
  Stream s(kMixed);
  for (const int window : {30, 90}) {
    s.window = window;
    check_heads(s, 52, {{1, 1}, {2, 64}, {3, 7}, {2, 200}, {2, 64, 50}});
  }
}

TEST(AttendMixedHeads, GiveTheBytesOfHeadsAloneUnderBlockPrompt) {
  Stream s(kMixed);
  s.prompt = 150;
  check_heads(s, 53, {{1, 1}, {2, 64}, {3, 7}, {2, 200}});
  s.window = 60;
  check_heads(s, 54, {{1, 1}, {2, 64}});
}

// Some heads of the layer use more than 512 slots, others few: one row is shared out over the threads.
TEST(AttendMixedHeads, GiveTheBytesOfHeadsAloneInLongRows) {
  Stream s({kAll, score_rule(40, .95, 2, 20), raised(weighted(score_rule(600, .99, 1, 300)))});
  s.tokens = 800;
  s.dim = 32;
  check_heads(s, 55, {{1, 64}, {2, 64, 250}, {3, 1}});
}

// A prompt that follows decoded tokens under block = prompt, before any other prompt has ended.
TEST(AttendBytes, APromptAfterDecodedTokensGivesTheBytesOfSingleRows) {
  Stream s(score_rule(191, .9, 0, 90));  // the slot that is free ends a chunk, or does not
  s.tokens = 300 + 64;
  Stream prompt = s;
  prompt.prompt = s.tokens;
  const Input input = random_input(s, 56);
  for (const std::int64_t budget : {190, 191, 192}) {
    prompt.rules[0].budget = budget;
    std::vector<Outcome> outcomes;
    for (const int chunk : {64, 1}) {
      Outcome outcome{std::vector<float>(input.q.size()), {}, prompt.store()};
      Input copy = input;
      CpuAttention decoding(s, cpu::supported_isas().front(), 1), prefill(prompt, cpu::supported_isas().front(), 2);
      for (int row = 0; row < 300; ++row) ASSERT_TRUE(decoding.feed(*outcome.store, copy, row, 1, outcome.out));
      for (int row = 300; row < s.tokens; row += chunk)
        ASSERT_TRUE(prefill.feed(*outcome.store, copy, row, chunk, outcome.out));
      outcomes.push_back(drained(std::move(outcome)));
    }
    expect_same_bytes(outcomes[0], outcomes[1]);
  }
}

}  // namespace
}  // namespace a2sf::test
