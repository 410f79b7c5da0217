// Numbers that are not finite, and heads without a slot, end a sequence and write nothing.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "kernels/attend_stream.h"

namespace a2sf::test {
namespace {

struct Spoiled {
  const char* name;
  std::function<void(const Stream&, Input&)> spoil;
};

constexpr int kSpoiledRow = 75;  // beyond the budget: something would have to be evicted

float* at(std::vector<float>& values, int columns) { return values.data() + kSpoiledRow * columns; }

class NotFinite : public testing::TestWithParam<Spoiled> {};

// Budgets of 15 leave no room in the last tile of slots for a token that is not evicted.
TEST_P(NotFinite, EndsTheSequenceAtItsRowInEveryMode) {
  const HeadRule rule = score_rule(15, .9, 1, 7);
  std::vector<Stream> streams = {Stream(rule), Stream(raised(weighted(rule))), Stream(rule, 8),
                                 Stream(kAll), Stream(oracle_rule(20)),        Stream(score_rule(32, .98, 0, 16))};
  streams.back().prompt = 120;
  for (Stream& s : streams) {
    s.tokens = 120;
    s.type = KvType::f32;
    Input input = random_input(s, 23);
    GetParam().spoil(s, input);
    const Outcome reference = run_reference(s, input);
    ASSERT_FALSE(reference.status);
    EXPECT_EQ(reference.status.error().message, std::to_string(kSpoiledRow));
    for (const cpu::Isa isa : cpu::supported_isas()) {
      for (const auto& [threads, chunk] : {std::pair{1, 1}, {2, 64}, {3, 120}}) {
        const Outcome cpu = run_cpu(s, input, isa, {threads, chunk});
        ASSERT_FALSE(cpu.status) << name_of(isa) << ", chunks of " << chunk;
        EXPECT_EQ(cpu.status.error().message,
                  "attention is not finite at position 75, layer 0, KV head 0: this sequence cannot go on");
        const HeadCache& head = cpu.head(0);
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
TEST(AttendFailures, ALongRowThatIsNotFiniteEndsItsSequence) {
  Stream s(kAll);
  s.tokens = 700;
  Input input = random_input(s, 24);
  input.q[static_cast<std::size_t>(650 * s.q_columns())] = NAN;
  const Outcome outcome = run_cpu(s, input, cpu::supported_isas().front(), {2, 1});
  ASSERT_FALSE(outcome.status);
  EXPECT_NE(outcome.status.error().message.find("position 650"), std::string::npos);
}

// Whatever a cache was told to keep: a token without a slot is an error, not a write beyond the last one.
TEST(AttendFailures, ATokenWithoutASlotEndsItsSequence) {
  Stream s(score_rule(15, .9, 8, 16));  // protects more than there are slots for, as no spec can
  s.tokens = 60;
  for (const int chunk : {1, 60}) {
    const Outcome outcome = run_cpu(s, random_input(s, 25), cpu::supported_isas().front(), {2, chunk});
    ASSERT_FALSE(outcome.status);
    EXPECT_EQ(outcome.status.error().message,
              "no token could be evicted before position 16, layer 0, KV head 0: this sequence cannot go on");
    EXPECT_LE(outcome.head(0).used(), 16);
  }
}

}  // namespace
}  // namespace a2sf::test
