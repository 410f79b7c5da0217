// SharedBudget victim by victim, against a plain simulation of what its header says.
#include "hooks/hook_support.h"

namespace a2sf::test {
namespace {

// What the heads of a layer hold: position to score.
using Held = std::vector<std::map<int, float>>;
using Victims = std::map<HeadKey, std::vector<std::pair<int, int>>>;  // step, position

// Of one layer: the lowest score of the whole layer goes until the heads hold what their budgets add up to, but no head
// more than twice its own, and none loses its last token.
class LayerSimulation {
 public:
  LayerSimulation(const Session& session, int layer) : layer_(layer) {
    for (int h = 0; h < kKvHeads; ++h) rules_.push_back(session.rule(layer, h));
  }

  // After the row at `now`, unless a prompt under block = prompt goes on.
  void row(const Held& held, int now, std::int64_t block, Victims& victims) const {
    std::int64_t total = 0, due_at = 0;
    bool is_due = false;
    for (std::size_t h = 0; h < held.size(); ++h) {
      total += std::ssize(held[h]);
      due_at += rules_[h].budget + block;
      is_due = is_due || (std::ssize(held[h]) > most(h) && std::ssize(held[h]) >= most(h) + block);
    }
    if (is_due || total >= due_at) cut(held, now, victims);
  }

  void cut(Held held, int now, Victims& victims) const {
    for (;;) {
      std::int64_t total = 0, budgets = 0;
      int from = -1;
      for (std::size_t h = 0; h < held.size(); ++h) {
        total += std::ssize(held[h]);
        budgets += rules_[h].budget;
        if (from < 0 && std::ssize(held[h]) > most(h)) from = static_cast<int>(h);
      }
      if (from < 0 && total <= budgets) return;
      int victim = -1;
      float lowest = 0;
      std::size_t owner = 0;
      for (std::size_t h = 0; h < held.size(); ++h) {
        if (from >= 0 ? from != static_cast<int>(h) : held[h].size() <= 1) continue;
        for (const auto& [position, score] : held[h]) {  // the older one of equal scores comes first
          if (position < std::max(rules_[h].sink, rules_[h].pin) || position > now - rules_[h].recent) continue;
          if (victim >= 0 && score >= lowest) continue;
          victim = position;
          lowest = score;
          owner = h;
        }
      }
      if (victim < 0) return;
      held[owner].erase(victim);
      victims[{layer_, static_cast<int>(owner)}].emplace_back(now, victim);
    }
  }

 private:
  std::int64_t most(std::size_t h) const { return 2 * rules_[h].budget; }

  int layer_;
  std::vector<HeadRule> rules_;
};

Held held_by(const HookLayer& layer) {
  Held held(static_cast<std::size_t>(layer.kv_heads()));
  for (int h = 0; h < layer.kv_heads(); ++h) {
    const HookHead& head = layer.head(h);
    for_each_held(head, [&](int slot) { held[static_cast<std::size_t>(h)][head.position(slot)] = head.score(slot); });
  }
  return held;
}

Held held_by(const Session& session, int layer) {
  Held held(kKvHeads);
  for (int h = 0; h < kKvHeads; ++h) {
    const auto positions = session.retained(layer, h);
    const auto scores = session.scores(layer, h);
    for (std::size_t i = 0; i < positions.size(); ++i) held[static_cast<std::size_t>(h)][positions[i]] = scores[i];
  }
  return held;
}

// Runs the session and the simulation side by side: it is shown every row before anything goes.
class SharedReplay {
 public:
  SharedReplay(Session& session, const Model& model) : session_(session), model_(model) {
    session.record_evictions();
    onlooker_->on_row = [this](const HookLayer& layer) {
      const Held held = held_by(layer);
      expire(held, layer);
      const int now = static_cast<int>(layer.position());
      const LayerSimulation simulation(session_, layer.layer());
      if (prompt_end_ < 0) simulation.row(held, now, block_, expected_);
      if (prompt_end_ == now) simulation.cut(held, now, expected_);
      after_[layer.layer()] = held;
    };
    EXPECT_TRUE(session.observe(onlooker_, {.every_row = true}));
  }

  void feed(const Tokens& tokens, std::int64_t block, std::size_t chunk) {
    block_ = block;
    feed_in(session_, tokens, chunk);
  }
  void feed_prompt(const Tokens& tokens) {
    prompt_end_ = static_cast<int>(session_.position() + std::ssize(tokens)) - 1;
    EXPECT_TRUE(session_.feed(tokens, WantLogits::last, true));
    prompt_end_ = -1;
  }
  void resize(std::int64_t budget) {
    std::vector<Held> before;
    for (int layer = 0; layer < model_.info().layers; ++layer) before.push_back(held_by(session_, layer));
    EXPECT_TRUE(session_.resize({BudgetCount{budget}, {}}));
    for (int layer = 0; layer < model_.info().layers; ++layer) {
      LayerSimulation(session_, layer)
          .cut(before[static_cast<std::size_t>(layer)], static_cast<int>(session_.position()) - 1, expected_);
    }
  }
  void expect_same() {
    std::size_t victims = 0;
    for_each_head(model_, [&](int layer, int h) {
      EXPECT_EQ(victims_of(session_.evictions(layer, h)), (expected_[{layer, h}])) << layer << " " << h;
      victims += expected_[{layer, h}].size();
    });
    EXPECT_GT(victims, 0U);
  }

 private:
  // What a window has left behind before the row is no choice of the hook's, but is in the record.
  void expire(const Held& held, const HookLayer& layer) {
    const int now = static_cast<int>(layer.position());
    const int window = model_.info().windows[static_cast<std::size_t>(layer.layer())];
    if (window == 0 || now < window || after_[layer.layer()].empty()) return;
    for (std::size_t h = 0; h < held.size(); ++h) {
      const int gone = now - window;
      if (!after_[layer.layer()][h].contains(gone)) continue;
      auto& victims = expected_[{layer.layer(), static_cast<int>(h)}];
      const bool evicted = std::any_of(victims.begin(), victims.end(), [&](const auto& v) { return v.second == gone; });
      if (!evicted) victims.emplace_back(now, gone);
    }
  }

  Session& session_;
  const Model& model_;
  std::shared_ptr<Onlooker> onlooker_ = std::make_shared<Onlooker>();
  std::int64_t block_ = 1;
  int prompt_end_ = -1;
  std::map<int, Held> after_;  // [layer]: as the last row was shown
  Victims expected_;
};

class SharedBudgetOf : public OnEveryDevice {};
A2SF_ON_EVERY_DEVICE(SharedBudgetOf);

TEST_P(SharedBudgetOf, TheLowestScoreOfTheLayerGoes) {
  for (const char* options :
       {"budget=12", "budget=12:sink=2", "budget=12:recent=0", "budget=12:recent=9:sink=1", "budget=12:pin=5:recent=2",
        "budget=1", "budget=2:recent=0", "budget=6:alpha=0.3:recent=0"}) {
    for (const std::size_t chunk : {std::size_t{1}, std::size_t{64}}) {
      SCOPED_TRACE(options);
      const auto model = this->model();
      Session session = session_of(std::string("shared-budget:") + options, model);
      SharedReplay replay(session, *model);
      replay.feed(random_tokens(80), 1, chunk);
      replay.expect_same();
    }
  }
}

TEST_P(SharedBudgetOf, ABlockIsThatManyTokensOfEachHead) {
  for (const char* options : {"budget=12:block=5", "budget=7:block=5:sink=2:recent=2", "budget=3:block=9:recent=0"}) {
    SCOPED_TRACE(options);
    const auto model = this->model();
    Session session = session_of(std::string("shared-budget:") + options, model);
    SharedReplay replay(session, *model);
    replay.feed(random_tokens(90), parse_policy(std::string("a2sf:") + options)->block(), 90);
    replay.expect_same();
  }
}

TEST_P(SharedBudgetOf, WhatALayerKeepsAndEvictsIsTheSameUnobservedInAnyChunks) {
  for (const char* options : {"budget=12", "budget=12:block=5:sink=1"}) {
    SCOPED_TRACE(options);
    Session whole = session_of(std::string("shared-budget:") + options, model());
    whole.record_evictions();
    const Floats expected = feed_all(whole, random_tokens(90));
    const auto record = all_evictions(whole, *model());
    for (const std::size_t chunk : {std::size_t{1}, std::size_t{7}}) {
      Session pieces = session_of(std::string("shared-budget:") + options, model());
      pieces.record_evictions();
      EXPECT_TRUE(same_bytes(feed_in(pieces, random_tokens(90), chunk), expected));
      for (const auto& [head, evictions] : all_evictions(pieces, *model()))
        EXPECT_EQ(victims_of(evictions), victims_of(record.at(head)));
    }
  }
}

TEST_P(SharedBudgetOf, APromptsEndCutsTheLayerAtOnce) {
  for (const char* options : {"budget=12:block=prompt", "budget=9:block=prompt:sink=2:recent=3"}) {
    SCOPED_TRACE(options);
    const auto model = this->model();
    Session session = session_of(std::string("shared-budget:") + options, model);
    SharedReplay replay(session, *model);
    replay.feed_prompt(random_tokens(100));
    replay.feed(random_tokens(20, 3), 1, 1);
    replay.feed_prompt(random_tokens(30, 4));
    replay.expect_same();
  }
}

TEST_P(SharedBudgetOf, AResizeAsksItToo) {
  for (const char* options : {"budget=20", "budget=20:sink=2:recent=4:pin=3", "budget=20:block=5"}) {
    SCOPED_TRACE(options);
    const auto model = this->model();
    const std::int64_t block = parse_policy(std::string("a2sf:") + options)->block();
    Session session = session_of(std::string("shared-budget:") + options, model);
    SharedReplay replay(session, *model);
    replay.feed(random_tokens(60), block, 60);
    replay.resize(9);
    replay.feed(random_tokens(30, 2), block, 30);
    replay.resize(30);
    replay.feed(random_tokens(60, 3), block, 7);
    replay.expect_same();
  }
}

TEST_P(SharedBudgetOf, AWindowGoesFirst) {
  for (const char* options : {"budget=6", "budget=6:block=4:sink=1", "budget=20"}) {
    SCOPED_TRACE(options);
    const auto model = this->model("gemma3");
    Session session = session_of(std::string("shared-budget:") + options, model);
    SharedReplay replay(session, *model);
    replay.feed(random_tokens(70), parse_policy(std::string("a2sf:") + options)->block(), 70);
    replay.expect_same();
  }
}

// A head that keeps everything has nothing to share.
TEST_P(SharedBudgetOf, TheOthersOfALayerKeepToTheirBudgetsBesideAHeadThatKeepsAll) {
  PolicySpec spec = parse_policy("shared-budget").value();
  spec.budget.budget = BudgetTable{{{kKeepAll, 10}, {10, 10}}, ""};
  Session session = session_of(spec, model());
  ASSERT_TRUE(session.feed(random_tokens(60)));
  EXPECT_EQ(session.retained(0, 0).size(), 60U);
  EXPECT_EQ(session.retained(0, 1).size(), 10U);
  EXPECT_EQ(session.retained(1, 0).size() + session.retained(1, 1).size(), 20U);
}

}  // namespace
}  // namespace a2sf::test
