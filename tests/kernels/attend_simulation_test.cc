// Attention, scores, weights and victims beside a simulation in plain loops, which shares nothing with the kernels: the
// reference and the fast kernels choose victims and weigh values by the same code.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "kernels/attend_stream.h"

namespace a2sf::test {
namespace {

struct Token {
  std::int32_t position;
  std::vector<double> key, value;
  double score, weight, alpha, gain;
};

// One KV head. What goes is what it is told; it says whether that was right.
class Simulation {
 public:
  explicit Simulation(const Stream& s) : s_(s), rule_(s.rules[0]) {}

  // Steps 0 to 3 of one row. Returns the outputs of the group.
  std::vector<double> attend(const Input& input, std::int32_t now) {
    std::erase_if(tokens_, [&](const Token& token) { return s_.window > 0 && token.position <= now - s_.window; });
    const auto dim = static_cast<std::size_t>(s_.dim), row = static_cast<std::size_t>(now);
    const auto value = std::span(input.v).subspan(row * dim, dim);
    tokens_.push_back({now,
                       rotated(std::span(input.k).subspan(row * dim, dim), now),
                       {value.begin(), value.end()},
                       0,
                       weight(input, now),
                       rule_.alpha,
                       1});
    if (rule_.classes) classify(tokens_.back());
    for (Token& token : tokens_) token.score *= token.alpha;
    std::vector<double> out;
    for (int g = 0; g < s_.group; ++g) {
      const auto at = (row * static_cast<std::size_t>(s_.group) + static_cast<std::size_t>(g)) * dim;
      attend_one(rotated(std::span(input.q).subspan(at, dim), now), out);
    }
    return out;
  }

  // Step 4. The victims must be as many as are due, and none that stays may be worth less than one that goes.
  void expect_victims_and_evict(std::int32_t now, const std::vector<std::int32_t>& victims) {
    const bool prompt_ends = now == s_.prompt - 1, in_prompt = now < s_.prompt - 1;
    const auto occupied = std::ssize(tokens_);
    const bool due = !in_prompt && (prompt_ends || occupied >= rule_.budget + s_.block);
    ASSERT_EQ(std::ssize(victims), due ? std::max<std::ptrdiff_t>(0, occupied - rule_.budget) : 0) << "row " << now;
    double most = 0, least = INFINITY;
    for (const Token& token : tokens_) {
      const bool may_go = token.position >= std::max(rule_.sink, rule_.pin) && token.position <= now - rule_.recent;
      const double worth = rule_.value_weight ? token.score * token.weight : token.score;
      if (std::find(victims.begin(), victims.end(), token.position) != victims.end()) {
        ASSERT_TRUE(may_go) << "row " << now << ", position " << token.position;
        most = std::max(most, worth);
      } else if (may_go) {
        least = std::min(least, worth);
      }
    }
    ASSERT_LE(most, least * (1 + 1e-5)) << "row " << now;
    const auto before = tokens_.size();
    std::erase_if(tokens_, [&](const Token& token) {
      return std::find(victims.begin(), victims.end(), token.position) != victims.end();
    });
    ASSERT_EQ(tokens_.size() + victims.size(), before);
  }

  const std::vector<Token>& tokens() const { return tokens_; }

 private:
  // |v - the mean of all values up to this row|, from their definition.
  double weight(const Input& input, std::int32_t now) const {
    double squares = 0;
    for (int i = 0; i < s_.dim; ++i) {
      double sum = 0;
      for (int row = 0; row <= now; ++row) sum += input.v[static_cast<std::size_t>(row * s_.dim + i)];
      const double distance = input.v[static_cast<std::size_t>(now * s_.dim + i)] - sum / (now + 1);
      squares += distance * distance;
    }
    return std::sqrt(squares);
  }

  // The factors of kClasses, in the order in which Stream::ids() goes through them.
  void classify(Token& token) const {
    const double memories[] = {3, .5, 1, .01}, gains[] = {1, .25, 4, 1.5};
    const int index = token.position % 4;
    token.alpha = std::max(0.0, 1 - (1 - rule_.alpha) / memories[index]);
    token.gain = gains[index];
  }

  std::vector<double> rotated(std::span<const float> x, std::int32_t position) const {
    std::vector<float> copy(x.begin(), x.end());
    const auto angles = s_.angles();
    reference::rotate(copy, {angles, 1, s_.interleaved}, position);
    return {copy.begin(), copy.end()};
  }

  void attend_one(const std::vector<double>& query, std::vector<double>& out) {
    std::vector<double> p;
    for (const Token& token : tokens_)
      p.push_back(std::exp(s_.scale() * std::inner_product(query.begin(), query.end(), token.key.begin(), 0.0)));
    const double sum = std::accumulate(p.begin(), p.end(), 0.0);
    std::vector<double> weighed(query.size(), 0.0);
    for (std::size_t i = 0; i < tokens_.size(); ++i) {
      if (p[i] / sum >= rule_.threshold) tokens_[i].score += tokens_[i].gain * std::pow(p[i] / sum, rule_.power);
      for (std::size_t d = 0; d < weighed.size(); ++d) weighed[d] += p[i] / sum * tokens_[i].value[d];
    }
    out.insert(out.end(), weighed.begin(), weighed.end());
  }

  const Stream& s_;
  const HeadRule& rule_;
  std::vector<Token> tokens_;  // in order of position
};

// Scores, and weights where there are some.
void expect_same_tokens(const Simulation& simulation, const HeadCache& head, bool value_weight) {
  const auto slots = head.slots_by_position();
  ASSERT_EQ(slots.size(), simulation.tokens().size());
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const Token& token = simulation.tokens()[i];
    EXPECT_EQ(head.position(slots[i]), token.position);
    EXPECT_NEAR(head.score(slots[i]), token.score, 2e-5 * std::max(1.0, token.gain));
    if (value_weight) {
      EXPECT_NEAR(head.number(slots[i], kValueWeight), token.weight, 1e-4);
    }
  }
}

void check_run(const Stream& s, const Input& input, const Outcome& run) {
  ASSERT_TRUE(run.status);
  Simulation simulation(s);
  for (std::int32_t now = 0; now < s.tokens; ++now) {
    const std::vector<double> out = simulation.attend(input, now);
    for (std::size_t i = 0; i < out.size(); ++i)
      ASSERT_NEAR(run.out[static_cast<std::size_t>(now) * out.size() + i], out[i], 2e-5) << "row " << now;
    std::vector<std::int32_t> victims;
    for (const Eviction& e : run.evictions[0]) {
      if (e.step == now && (s.window == 0 || e.position > now - s.window)) victims.push_back(e.position);
    }
    ASSERT_NO_FATAL_FAILURE(simulation.expect_victims_and_evict(now, victims));
  }
  expect_same_tokens(simulation, run.head(0), s.rules[0].value_weight);
}

// One remembers longer, one shorter, one forgets at once.
const TokenClasses kClasses{{{"a", 3, 1}, {"b", .5, .25}, {"c", 1, 4}, {"d", .01, 1.5}}, {0, 1, 2, 3}};

void check(Stream s, unsigned seed) {
  s.type = KvType::f32;
  if (s.rules[0].classes) s.classes = std::make_shared<const TokenClasses>(kClasses);
  const Input input = random_input(s, seed);
  {
    SCOPED_TRACE("reference");
    check_run(s, input, run_reference(s, input));
  }
  for (const cpu::Isa isa : cpu::supported_isas()) {
    SCOPED_TRACE(name_of(isa));
    check_run(s, input, run_cpu(s, input, isa, {2, 16}));
  }
}

class SimulationOf : public testing::TestWithParam<HeadRule> {};

TEST_P(SimulationOf, AgreesTokenByToken) { check(Stream(GetParam()), 60); }

TEST_P(SimulationOf, AgreesWithBlocks) {
  for (const std::int64_t block : {2, 9, 33}) check(Stream(GetParam(), block), 61);
}

TEST_P(SimulationOf, AgreesUnderBlockPrompt) {
  Stream s(GetParam());
  for (const int prompt : {200, 110}) {
    s.prompt = prompt;
    check(s, 62);
  }
}

TEST_P(SimulationOf, AgreesInAWindow) {
  Stream s(GetParam());
  for (const int window : {60, 32}) {
    s.window = window;
    check(s, 63);
  }
}

const HeadRule kRule = score_rule(30, .95, 2, 10);
INSTANTIATE_TEST_SUITE_P(Attend, SimulationOf,
                         testing::Values(kRule, raised(kRule), weighted(kRule), raised(weighted(kRule)),
                                         raised(weighted(pinned(score_rule(30, 1, 1, 0), 6))),
                                         weighted(score_rule(30, 0, 1, 0)), from(.03, kRule),
                                         from(.03, raised(weighted(kRule))), from(.02, by_class(kRule)),
                                         by_class(kRule), by_class(raised(weighted(kRule))),
                                         by_class(score_rule(30, 0, 0, 3)),
                                         by_class(weighted(score_rule(30, 1, 1, 0)))));

// A class that changes nothing is as none; what a slot knows of its token goes with it, whatever the chunks.
TEST(TokenClassNumbers, AreOfOneBytesWhateverTheChunks) {
  Stream plain(score_rule(300, .99, 0, 100), 16), classed(by_class(plain.rules[0]), 16);
  for (Stream* const s : {&plain, &classed}) s->tokens = 700;
  const Input input = random_input(plain, 65);
  for (const cpu::Isa isa : cpu::supported_isas()) {
    classed.classes = std::make_shared<const TokenClasses>(TokenClasses{{{"all", 1, 1}}, {0}});
    const Outcome of_plain = run_cpu(plain, input, isa, {1, 64}), of_one = run_cpu(classed, input, isa, {1, 64});
    for (std::size_t i = 0; i < of_plain.out.size(); ++i) ASSERT_NEAR(of_plain.out[i], of_one.out[i], 1e-6);
    classed.classes = std::make_shared<const TokenClasses>(kClasses);
    const Outcome row_by_row = run_cpu(classed, input, isa, {1, 1});
    EXPECT_NE(row_by_row.out, of_plain.out);
    for (const Feeding& feeding : {Feeding{1, 64}, Feeding{2, 7, 100}})
      expect_same_bytes(run_cpu(classed, input, isa, feeding), row_by_row);
  }
}

// The weights that the slots of a run have, whatever they are stored as, and those of a copy that goes on.
TEST(ValueWeight, IsOfTheValuesBeforeRoundingAndGoesOnInAClone) {
  const Stream s(weighted(score_rule(40, .9, 1, 10)));
  const Input input = random_input(s, 64);
  for (const cpu::Isa isa : cpu::supported_isas()) {
    SCOPED_TRACE(name_of(isa));
    CpuAttention attention(s, isa, 1);
    Input copy = input;
    Outcome whole{std::vector<float>(input.q.size()), {}, s.store()}, cloned{whole.out, {}, nullptr};
    ASSERT_TRUE(attention.feed(*whole.store, copy, 0, 120, whole.out));
    auto clone = whole.store->clone();
    ASSERT_TRUE(clone);
    cloned.store.reset(static_cast<HostStore*>(clone->release()));
    cloned.out = whole.out;
    for (Outcome* const run : {&whole, &cloned}) ASSERT_TRUE(attention.feed(*run->store, copy, 120, 80, run->out));
    const auto dim = static_cast<std::size_t>(s.dim);
    for (const int slot : whole.head(0).slots_by_position()) {
      const auto rows = static_cast<std::size_t>(whole.head(0).position(slot)) + 1;
      double squares = 0;
      for (std::size_t i = 0; i < dim; ++i) {
        double sum = 0;
        for (std::size_t row = 0; row < rows; ++row) sum += input.v[row * dim + i];
        const double distance = input.v[(rows - 1) * dim + i] - sum / static_cast<double>(rows);
        squares += distance * distance;
      }
      EXPECT_NEAR(whole.head(0).number(slot, kValueWeight), std::sqrt(squares), 1e-4);
      EXPECT_EQ(whole.head(0).number(slot, kValueWeight), cloned.head(0).number(slot, kValueWeight));
    }
    expect_same_bytes(drained(std::move(whole)), drained(std::move(cloned)));
  }
}

}  // namespace
}  // namespace a2sf::test
