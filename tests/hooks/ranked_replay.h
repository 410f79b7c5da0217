// Rules that rank the tokens of a head now and then, and go by these ranks in between.
#pragma once

#include "hooks/replay.h"

namespace a2sf::test {

// The ranks of a head serve until a prompt ends or an eighth of what was ranked may have gone.
class RankedCuts {
 public:
  using RankOf = std::function<Ranks(const ShownHead&)>;

  explicit RankedCuts(RankOf rank_of) : rank_of_(std::move(rank_of)) {}

  // The ranks of heads that share what goes, now `going` tokens; `first` is the first of them.
  const std::vector<Ranks>& ranks(HeadKey first, std::span<const ShownHead> sharing, std::int64_t going) {
    Ranking& ranking = rankings_[first];
    if (sharing.front().prompt_ends || going > ranking.serves) {
      ranking = {};
      std::int64_t ranked = 0;
      for (const ShownHead& head : sharing) {
        const Ranks& ranks = ranking.heads.emplace_back(rank_of_(head));
        ranked += std::count_if(ranks.begin(), ranks.end(), [&](const auto& r) { return head.may_go(r.first); });
      }
      ranking.serves = ranked / 8;
    }
    ranking.serves -= going;
    return ranking.heads;
  }
  // Each head to its budget.
  void operator()(int layer, const ShownLayer& shown, Kept& kept) {
    for (std::size_t h = 0; h < shown.size(); ++h) {
      const ShownHead& head = shown[h];
      const auto going = std::ssize(head.tokens) - head.rule.budget;
      if (going <= 0 && !head.prompt_ends) continue;
      const Ranks& own = ranks({layer, static_cast<int>(h)}, {&head, 1}, std::max<std::int64_t>(0, going)).front();
      while (std::ssize(kept[h]) > head.rule.budget) kept[h].erase(lowest_ranked(head, kept[h], own));
    }
  }

 private:
  struct Ranking {
    std::int64_t serves = 0;
    std::vector<Ranks> heads;
  };
  RankOf rank_of_;
  std::map<HeadKey, Ranking> rankings_;
};

// A prompt, an answer, a second turn.
inline void converse(Replay& replay) {
  replay.feed_prompt(random_tokens(100));
  replay.feed(random_tokens(25, 3));
  replay.feed_prompt(random_tokens(30, 4));
  replay.feed(random_tokens(10, 5));
  replay.expect_same();
}

// SnapKV's scores: the probabilities that the last `rows` rows give to a token that is older than the recent ones,
// summed over `kernel` neighbours.
inline Ranks window_votes(const ShownHead& head, int rows, int kernel) {
  Ranks votes;
  int newest = -1;
  for (const auto& [position, token] : head.tokens) newest = head.may_go(position) ? position : newest;
  for (int back = 0; back < std::min<int>(rows, static_cast<int>(head.queries.size())); ++back) {
    for (int g = 0; g < kGroup; ++g) {
      for (const auto& [position, p] : head.probabilities(back, g)) {
        if (position <= newest) votes[position] += p;
      }
    }
  }
  const std::vector<std::pair<int, double>> list(votes.begin(), votes.end());
  Ranks pooled;
  for (int i = 0; i < static_cast<int>(list.size()); ++i) {
    for (int j = std::max(0, i - kernel / 2); j <= std::min(static_cast<int>(list.size()) - 1, i + kernel / 2); ++j)
      pooled[list[static_cast<std::size_t>(i)].first] += list[static_cast<std::size_t>(j)].second;
  }
  return pooled;
}

}  // namespace a2sf::test
