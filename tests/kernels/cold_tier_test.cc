// What comes back from the cold tier, beside a simulation in plain loops that shares nothing with the kernels.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <numeric>

#include "kernels/attend_stream.h"

namespace a2sf::test {
namespace {

using Doubles = std::vector<double>;

struct SimulatedToken {
  Doubles key;
  double score = 0, weight = 0;
  int recalls = 0;
};
using Tokens = std::map<int, SimulatedToken>;  // by position

// One KV head, by the rule as policy.h says it.
class ColdSimulation {
 public:
  explicit ColdSimulation(const Stream& s) : s_(s), rule_(s.rules[0]) {}

  void run(const Input& input) {
    const int every = s_.block >= 16 ? 4 : s_.block >= 8 ? 2 : 1;
    for (int row = 0; row < s_.tokens; ++row) {
      const bool prompt_ends = row == s_.prompt - 1, whole = s_.whole_prompt && row < s_.prompt;
      append(input, row);
      read_queries(input, row);
      if (prompt_ends || (!whole && row % every == 0)) recall(row);
      attend();
      if (whole ? prompt_ends : std::ssize(hot_) >= rule_.budget + s_.block) evict(row);
    }
  }
  const Tokens& hot() const { return hot_; }
  const Tokens& cold() const { return cold_; }
  int recalled() const { return recalled_; }
  const std::vector<std::pair<int, int>>& evicted() const { return evicted_; }  // step, position

 private:
  double exponential(const Doubles& query, const Doubles& key) const {
    return std::exp(s_.scale() * std::inner_product(query.begin(), query.end(), key.begin(), 0.0));
  }

  Doubles rotated(std::span<const float> x, int position) const {
    std::vector<float> copy(x.begin(), x.end());
    const auto angles = s_.angles();
    reference::rotate(copy, {angles, 1, s_.interleaved}, position);
    return {copy.begin(), copy.end()};
  }

  void append(const Input& input, int row) {
    const auto dim = static_cast<std::size_t>(s_.dim), at = static_cast<std::size_t>(row);
    hot_[row].key = rotated(std::span(input.k).subspan(at * dim, dim), row);
    hot_[row].weight = weight(input, row);
  }

  void read_queries(const Input& input, int row) {
    const auto dim = static_cast<std::size_t>(s_.dim), first = static_cast<std::size_t>(row * s_.group);
    queries_.clear();
    for (std::size_t g = 0; g < static_cast<std::size_t>(s_.group); ++g)
      queries_.push_back(rotated(std::span(input.q).subspan((first + g) * dim, dim), row));
  }

  // Over what is held.
  Doubles sums() const {
    Doubles sums;
    for (const Doubles& query : queries_) {
      sums.push_back(0);
      for (const auto& [position, token] : hot_) sums.back() += exponential(query, token.key);
    }
    return sums;
  }

  // What the row adds to a token that is held, or would add to one that is not.
  double addition(const SimulatedToken& token, const Doubles& sums, bool held) const {
    double sum = 0;
    for (std::size_t g = 0; g < queries_.size(); ++g) {
      const double x = exponential(queries_[g], token.key);
      sum += std::pow(x / (held ? sums[g] : sums[g] + x), rule_.power);
    }
    return sum;
  }

  void attend() {
    const Doubles over = sums();
    for (auto& [position, token] : hot_) token.score = rule_.alpha * token.score + addition(token, over, true);
  }

  double weight(const Input& input, int row) const {
    double squares = 0;
    for (int i = 0; i < s_.dim; ++i) {
      double sum = 0;
      for (int r = 0; r <= row; ++r) sum += input.v[static_cast<std::size_t>(r * s_.dim + i)];
      squares += std::pow(input.v[static_cast<std::size_t>(row * s_.dim + i)] - sum / (row + 1), 2);
    }
    return std::sqrt(squares);
  }

  double worth(double wanted, const SimulatedToken& token) const {
    return rule_.value_weight ? wanted * token.weight : wanted;
  }

  bool may_go(int position, int now) const {
    return position >= std::max(rule_.sink, rule_.pin) && position <= now - rule_.recent;
  }

  void evict(int now) {
    while (std::ssize(hot_) > rule_.budget) {
      if (std::ssize(cold_) == s_.cold.tokens) {
        cold_.erase(std::min_element(cold_.begin(), cold_.end(), [](const auto& a, const auto& b) {
          return std::pair(a.second.recalls, a.first) < std::pair(b.second.recalls, b.first);
        }));
      }
      int lowest = -1;
      const auto score = [&](int position) { return worth(hot_.at(position).score, hot_.at(position)); };
      for (const auto& [position, token] : hot_) {
        if (may_go(position, now) && (lowest < 0 || score(position) < score(lowest))) lowest = position;
      }
      move(lowest, hot_, cold_, now);
    }
  }

  // The most that the row adds to the token or one of the three before it.
  Doubles find_wanted(int now) const {
    const Doubles over = sums();
    Doubles added(static_cast<std::size_t>(now) + 1), wanted;
    for (const auto& [position, token] : hot_) added[static_cast<std::size_t>(position)] = addition(token, over, true);
    for (const auto& [position, token] : cold_)
      added[static_cast<std::size_t>(position)] = addition(token, over, false);
    for (auto end = added.begin() + 1;; ++end) {
      wanted.push_back(*std::max_element(end - std::min<std::ptrdiff_t>(4, end - added.begin()), end));
      if (end == added.end()) return wanted;
    }
  }

  void recall(int now) {
    const Doubles wanted = find_wanted(now);
    const auto worth_of = [&](const auto& token) {
      return worth(wanted[static_cast<std::size_t>(token.first)], token.second);
    };
    const Tokens held = hot_, lost = cold_;
    std::vector<std::pair<double, int>> go, come;
    for (const auto& token : held) {
      if (may_go(token.first, now) && token.first < now) go.emplace_back(worth_of(token), token.first);
    }
    for (const auto& token : lost) come.emplace_back(-worth_of(token), token.first);
    std::sort(go.begin(), go.end());
    std::sort(come.begin(), come.end());
    for (std::size_t i = 0; i < std::min(go.size(), come.size()) && std::cmp_less(i, s_.cold.recall); ++i) {
      if (-come[i].first <= go[i].first) return;
      move(go[i].second, hot_, cold_, now);
      const int position = come[i].second;
      SimulatedToken& back = hot_[position] = lost.at(position);
      back.score = 0;
      for (int row = position; row <= now; ++row)
        back.score = rule_.alpha * back.score + wanted[static_cast<std::size_t>(position)];
      ++back.recalls;
      cold_.erase(position);
      ++recalled_;
    }
  }

  void move(int position, Tokens& from, Tokens& to, int now) {
    evicted_.emplace_back(now, position);
    to[position] = from.at(position);
    from.erase(position);
  }

  const Stream& s_;
  const HeadRule& rule_;
  Tokens hot_, cold_;
  std::vector<Doubles> queries_;  // of the row
  std::vector<std::pair<int, int>> evicted_;
  int recalled_ = 0;
};

void expect_same(const ColdSimulation& simulation, Outcome& run) {
  ASSERT_TRUE(run.status);
  std::vector<std::pair<int, int>> evicted, expected = simulation.evicted();
  for (const Eviction& eviction : in_order(run.evictions[0])) evicted.emplace_back(eviction.step, eviction.position);
  std::sort(expected.begin(), expected.end());
  ASSERT_EQ(evicted, expected);
  const auto kept = run.store->snapshot(0, 0);
  ASSERT_EQ(kept.size(), simulation.hot().size());
  for (const RetainedToken& token : kept) EXPECT_NEAR(token.score, simulation.hot().at(token.position).score, 1e-4);
  const HeadCache& cold = run.store->cold(0, 0);
  ASSERT_EQ(cold.occupied(), std::ssize(simulation.cold()));
  for (const int slot : cold.slots_by_position()) {
    const SimulatedToken& token = simulation.cold().at(cold.position(slot));
    EXPECT_NEAR(cold.score(slot), token.score, 1e-4);
    EXPECT_EQ(cold.number(slot, cold.numbers() - 1), token.recalls);
  }
}

Stream cold_stream(const HeadRule& rule, std::int64_t block, std::int64_t tokens, std::int64_t recall) {
  Stream s(rule, block);
  s.type = KvType::f32;
  s.cold = {tokens, recall};
  return s;
}

void check_recall(const Stream& s, unsigned seed) {
  const Input input = random_input(s, seed);
  ColdSimulation simulation(s);
  simulation.run(input);
  EXPECT_GT(simulation.recalled(), 0);
  Outcome reference = run_reference(s, input);
  {
    SCOPED_TRACE("reference, seed " + std::to_string(seed));
    expect_same(simulation, reference);
  }
  for (const cpu::Isa isa : cpu::supported_isas()) {
    for (const Feeding& feeding : {Feeding{1, 64}, Feeding{2, 7, 40}}) {
      SCOPED_TRACE(name_of(isa) + ", seed " + std::to_string(seed));
      Outcome run = run_cpu(s, input, isa, feeding);
      expect_same(simulation, run);
      for (std::size_t i = 0; i < run.out.size(); ++i) ASSERT_NEAR(run.out[i], reference.out[i], 2e-5);
    }
  }
}

const HeadRule kColdRule = score_rule(32, .8, 0, 16);

TEST(ColdTier, WhatComesBackIsWhatTheRowWouldAttendTo) {
  check_recall(cold_stream(kColdRule, 16, kKeepAll, 8), 1);
  check_recall(cold_stream(kColdRule, 9, kKeepAll, 8), 9);
  check_recall(cold_stream(kColdRule, 5, kKeepAll, 100), 2);
  check_recall(cold_stream(score_rule(32, 0, 2, 0), 1, kKeepAll, 3), 3);
}

TEST(ColdTier, OfAFullOneTheLeastRecalledAndOldestGo) {
  check_recall(cold_stream(kColdRule, 16, 40, 8), 4);
  check_recall(cold_stream(score_rule(32, .5, 0, 8), 16, 5, 8), 5);
}

TEST(ColdTier, PowersAndWeightsDecideWhoComesBack) {
  check_recall(cold_stream(raised(kColdRule), 16, kKeepAll, 8), 6);
  check_recall(cold_stream(weighted(score_rule(32, .8, 1, 16)), 16, 50, 8), 7);
  check_recall(cold_stream(raised(weighted(pinned(score_rule(32, .8, 1, 8), 4))), 16, kKeepAll, 8), 8);
}

TEST(ColdTier, IsSearchedAtTheEndOfAPrompt) {
  Stream s = cold_stream(kColdRule, 16, kKeepAll, 8);
  s.prompt = 135;  // in the middle of a block
  s.whole_prompt = false;
  check_recall(s, 9);
  s.whole_prompt = true;
  check_recall(s, 10);
}

TEST(ColdTier, OverSeveralChunks) {
  Stream s = cold_stream(score_rule(300, .8, 0, 150), 16, kKeepAll, 32);
  s.tokens = 900;
  check_recall(s, 11);
}

TEST(ColdTier, OfOneBytesWhateverTheChunksAndThreads) {
  Stream s = cold_stream(kColdRule, 16, kKeepAll, 8);
  s.rules = {kColdRule, kColdRule, kColdRule};
  s.type = KvType::f16;
  s.tokens = 400;
  const Input input = random_input(s, 12);
  for (const cpu::Isa isa : cpu::supported_isas()) {
    const Outcome row_by_row = run_cpu(s, input, isa, {1, 1});
    for (const Feeding& feeding : {Feeding{1, 64}, Feeding{2, 64, 40}, Feeding{2, 7}, Feeding{4, 400}})
      expect_same_bytes(run_cpu(s, input, isa, feeding), row_by_row);
  }
}

TEST(ColdTier, ALayerWithAWindowHasNone) {
  Stream s = cold_stream(kColdRule, 16, kKeepAll, 8);
  s.window = 60;
  const Outcome run = run_cpu(s, random_input(s, 13), cpu::supported_isas().front(), {1, 64});
  EXPECT_FALSE(run.store->has_cold_tier(0));
}

}  // namespace
}  // namespace a2sf::test
