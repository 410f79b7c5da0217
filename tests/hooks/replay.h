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

inline Floats key_of(const HookHead& head, int slot) {
  Floats key(kHeadDim);
  head.read_key(slot, key);
  return key;
}
inline Floats value_of(const HookHead& head, int slot) {
  Floats value(kHeadDim);
  head.read_value(slot, value);
  return value;
}

// Queries, keys and values as `needs` asks for them.
inline ShownHead shown(const HookHead& head, const HeadRule& rule, std::int64_t now, bool prompt_ends,
                       const HookNeeds& needs) {
  const auto doubles = [](std::span<const float> x) { return Doubles(x.begin(), x.end()); };
  ShownHead shown{rule, static_cast<int>(now), static_cast<double>(head.scale()), prompt_ends, {}, {}};
  for (int back = 0; back < needs.last_rows && !head.query(back, 0).empty(); ++back) {
    auto& queries = shown.queries.emplace_back();
    for (int g = 0; g < head.group(); ++g) queries.push_back(doubles(head.query(back, g)));
  }
  for_each_held(head, [&](int slot) {
    auto& token = shown.tokens[head.position(slot)] = {static_cast<double>(head.score(slot)), {}, {}};
    if (!needs.keys_values) return;
    token.key = doubles(key_of(head, slot));
    token.value = doubles(value_of(head, slot));
  });
  return shown;
}

// The lowest ranked goes, of equals the older; what has no rank comes last.
inline int lowest_ranked(const ShownHead& head, const std::set<int>& kept, const Ranks& ranks) {
  int lowest = -1;
  const auto rank = [&](int position) { return ranks.contains(position) ? ranks.at(position) : INFINITY; };
  for (const int position : kept) {
    if (head.may_go(position) && (lowest < 0 || rank(position) < rank(lowest))) lowest = position;
  }
  return lowest;
}

// Takes what goes out of `kept`; called when the rule is due.
using Cut = std::function<void(int layer, const ShownLayer& shown, Kept& kept)>;

// A rule that gives each token of a head a score after each row, by what the layer has: the lowest goes, each head to
// its budget. It is called for each row of each head, in order, so that it may keep what it has seen.
using RuleOfHead = std::function<Ranks(const HookLayer&, int kv_head)>;

// What such a rule may look at.
constexpr HookNeeds kSeesAll{.every_row = true, .last_rows = 64, .keys_values = true};

class Replay {
 public:
  Replay(const PolicySpec& spec, std::shared_ptr<const Model> model, Cut cut)
      : spec_(spec), model_(std::move(model)), session_(session_of(spec, model_)), cut_(std::move(cut)) {
    shown_ = {.every_row = true, .last_rows = std::max(1, factory().needs().last_rows), .keys_values = true};
    look_on(shown_);
  }
  // What the rule looks at it reads itself.
  Replay(const PolicySpec& spec, std::shared_ptr<const Model> model, RuleOfHead rule)
      : spec_(spec), model_(std::move(model)), session_(session_of(spec, model_)), rule_(std::move(rule)) {
    cut_ = [this](int layer, const ShownLayer& heads, Kept& kept) { cut_lowest(layer, heads, kept); };
    look_on(kSeesAll);
  }

  void feed_prompt(const Tokens& tokens) {
    prompt_end_ = spec_.evicts_at_prompt_end() ? session_.position() + std::ssize(tokens) - 1 : -1;
    EXPECT_TRUE(session_.feed(tokens, WantLogits::last, true));
    prompt_end_ = -1;
  }
  void feed(const Tokens& tokens, std::size_t chunk = 1) { feed_in(session_, tokens, chunk); }
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
  const HookFactory& factory() const { return *std::get<Hooked>(spec_.score).factory; }
  void look_on(const HookNeeds& needs) {
    onlooker_->on_row = [this](const HookLayer& layer) { row(layer); };
    EXPECT_TRUE(session_.observe(onlooker_, needs));
  }
  void row(const HookLayer& layer) {
    const std::int64_t now = layer.position();
    const bool prompt_ends = now == prompt_end_;
    EXPECT_EQ(layer.prompt_ends(), prompt_ends) << "layer " << layer.layer() << ", position " << now;
    ShownLayer heads;
    Kept held;
    for (int h = 0; h < layer.kv_heads(); ++h) {
      heads.push_back(shown(layer.head(h), session_.rule(layer.layer(), h), now, prompt_ends, shown_));
      if (rule_) scores_[{layer.layer(), h}] = rule_(layer, h);
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
      one = one || held >= factory().capacity(head.rule.budget) + block;
    }
    return one || (now == prompt_end_ ? room < std::ssize(heads) : room <= 0);
  }

  void cut_lowest(int layer, const ShownLayer& heads, Kept& kept) const {
    for (std::size_t h = 0; h < heads.size(); ++h) {
      const Ranks& scores = scores_.at({layer, static_cast<int>(h)});
      while (std::ssize(kept[h]) > heads[h].rule.budget) kept[h].erase(lowest_ranked(heads[h], kept[h], scores));
    }
  }

  PolicySpec spec_;
  std::shared_ptr<const Model> model_;
  Session session_;
  Cut cut_;
  RuleOfHead rule_;
  HookNeeds shown_;
  std::map<HeadKey, Ranks> scores_;  // of the last row, by the rule
  std::shared_ptr<Onlooker> onlooker_ = std::make_shared<Onlooker>();
  std::int64_t prompt_end_ = -1;
  std::map<int, Kept> kept_;        // [layer]
  std::map<int, ShownLayer> last_;  // [layer]: the last row
  int cuts_ = 0;
};

}  // namespace a2sf::test
