// A session and a plain simulation of its rule side by side: each row is shown before anything goes, the simulation
// says what stays, and the next row must show just that.
#pragma once

#include <set>

#include "hooks/hook_support.h"

namespace a2sf::test {

using Doubles = std::vector<double>;
using Ranks = std::map<int, double>;      // by position
using Kept = std::vector<std::set<int>>;  // [KV head], positions

struct ShownHead {
  struct Token {
    double score;
    Doubles key, value;
  };
  HeadRule rule;
  int now = 0;  // the position of the row
  double scale = 0;
  bool prompt_ends = false;                   // the row is the last of a prompt that was held whole
  std::map<int, Token> tokens;                // by position
  std::vector<std::vector<Doubles>> queries;  // [back][query head]

  bool may_go(int position) const { return position >= std::max(rule.sink, rule.pin) && position <= now - rule.recent; }
  double logit(int back, int query_head, int position) const {
    const Doubles& q = queries[static_cast<std::size_t>(back)][static_cast<std::size_t>(query_head)];
    return scale * std::inner_product(q.begin(), q.end(), tokens.at(position).key.begin(), 0.0);
  }
  // Softmax over the tokens at or before the row.
  Ranks probabilities(int back, int query_head) const {
    Ranks given;
    double sum = 0;
    for (const auto& [position, token] : tokens) {
      if (position <= now - back) sum += given[position] = std::exp(logit(back, query_head, position));
    }
    for (auto& [position, probability] : given) probability /= sum;
    return given;
  }
};
using ShownLayer = std::vector<ShownHead>;  // [KV head]

inline ShownHead shown(const HookHead& head, const HeadRule& rule, std::int64_t now, bool prompt_ends,
                       const HookNeeds& needs) {
  const auto doubles = [](std::span<const float> x) { return Doubles(x.begin(), x.end()); };
  ShownHead shown{rule, static_cast<int>(now), static_cast<double>(head.scale()), prompt_ends, {}, {}};
  for (int back = 0; back < needs.last_rows && !head.query(back, 0).empty(); ++back) {
    auto& queries = shown.queries.emplace_back();
    for (int g = 0; g < head.group(); ++g) queries.push_back(doubles(head.query(back, g)));
  }
  for_each_held(head, [&](int slot) {
    Floats key(kHeadDim), value(kHeadDim);
    head.read_key(slot, key);
    head.read_value(slot, value);
    shown.tokens[head.position(slot)] = {static_cast<double>(head.score(slot)), doubles(key), doubles(value)};
  });
  return shown;
}

class Replay {
 public:
  // Takes what goes out of `kept`; called when the rule is due.
  using Cut = std::function<void(int layer, const ShownLayer& shown, Kept& kept)>;

  Replay(const PolicySpec& spec, std::shared_ptr<const Model> model, Cut cut)
      : spec_(spec), model_(std::move(model)), session_(session_of(spec, model_)), cut_(std::move(cut)) {
    factory_ = std::get<Hooked>(spec_.score).factory;
    needs_ = {.every_row = true, .last_rows = std::max(1, factory_->needs().last_rows), .keys_values = true};
    onlooker_->on_row = [this](const HookLayer& layer) { row(layer); };
    EXPECT_TRUE(session_.observe(onlooker_, needs_));
  }

  void feed_prompt(const Tokens& tokens) {
    prompt_end_ = spec_.evicts_at_prompt_end() ? session_.position() + std::ssize(tokens) - 1 : -1;
    EXPECT_TRUE(session_.feed(tokens, WantLogits::last, true));
    prompt_end_ = -1;
  }
  void feed(const Tokens& tokens) { feed_in(session_, tokens, 1); }
  // What a smaller budget evicts is chosen by the last row.
  void resize(std::int64_t budget) {
    EXPECT_TRUE(session_.resize({BudgetCount{budget}, {}}));
    for (auto& [layer, heads] : last_) {
      for (std::size_t h = 0; h < heads.size(); ++h) {
        heads[h].rule = session_.rule(layer, static_cast<int>(h));
        heads[h].prompt_ends = false;
        const std::set<int>& kept = kept_[layer][h];
        std::erase_if(heads[h].tokens, [&](const auto& token) { return !kept.contains(token.first); });
      }
      cut_(layer, heads, kept_[layer]);
    }
  }
  // What is left after the last row; and something has gone.
  void expect_same() {
    for_each_head(*model_, [&](int layer, int h) {
      const auto retained = session_.retained(layer, h);
      EXPECT_EQ(std::set<int>(retained.begin(), retained.end()), kept_[layer][static_cast<std::size_t>(h)])
          << layer << " " << h;
    });
    EXPECT_GT(cuts_, 0);
  }
  const Session& session() const { return session_; }

 private:
  void row(const HookLayer& layer) {
    const std::int64_t now = layer.position();
    const bool prompt_ends = now == prompt_end_;
    EXPECT_EQ(layer.prompt_ends(), prompt_ends) << "layer " << layer.layer() << ", position " << now;
    ShownLayer heads;
    Kept held;
    for (int h = 0; h < layer.kv_heads(); ++h) {
      heads.push_back(shown(layer.head(h), session_.rule(layer.layer(), h), now, prompt_ends, needs_));
      auto& positions = held.emplace_back();
      for (const auto& [position, token] : heads.back().tokens) positions.insert(position);
    }
    last_[layer.layer()] = heads;
    const int window = model_->info().windows[static_cast<std::size_t>(layer.layer())];
    Kept& kept = kept_[layer.layer()];
    kept.resize(held.size());
    for (std::size_t h = 0; h < held.size(); ++h) {
      kept[h].insert(static_cast<int>(now));
      if (window > 0) std::erase_if(kept[h], [&](int position) { return position <= now - window; });
      ASSERT_EQ(held[h], kept[h]) << "layer " << layer.layer() << ", KV head " << h << ", position " << now;
    }
    if (!is_due(heads, now)) return;
    cut_(layer.layer(), heads, kept);
    ++cuts_;
  }
  bool is_due(const ShownLayer& heads, std::int64_t now) const {
    if (now < prompt_end_) return false;
    std::int64_t room = 0;
    bool one = false;
    const std::int64_t block = now == prompt_end_ ? 1 : spec_.block();
    for (const ShownHead& head : heads) {
      const auto held = std::ssize(head.tokens);
      room += head.rule.budget + block - held;
      one = one || held >= factory_->capacity(head.rule.budget) + block;
    }
    return one || (now == prompt_end_ ? room < std::ssize(heads) : room <= 0);
  }

  PolicySpec spec_;
  std::shared_ptr<const Model> model_;
  Session session_;
  Cut cut_;
  std::shared_ptr<const HookFactory> factory_;
  HookNeeds needs_;
  std::shared_ptr<Onlooker> onlooker_ = std::make_shared<Onlooker>();
  std::int64_t prompt_end_ = -1;
  std::map<int, Kept> kept_;        // [layer]
  std::map<int, ShownLayer> last_;  // [layer]: the last row
  int cuts_ = 0;
};

// The lowest ranked goes, of equals the older; what has no rank comes last.
inline int lowest_ranked(const ShownHead& head, const std::set<int>& kept, const Ranks& ranks) {
  int lowest = -1;
  const auto rank = [&](int position) { return ranks.contains(position) ? ranks.at(position) : INFINITY; };
  for (const int position : kept) {
    if (head.may_go(position) && (lowest < 0 || rank(position) < rank(lowest))) lowest = position;
  }
  return lowest;
}

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
