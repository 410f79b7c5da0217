// What hooks share whose scores cost many rows of attention, or a pass over all keys. They rank the tokens of a layer
// now and then; until the next time the lowest ranked go.
#pragma once

#include <a2sf/hook.h>
#include <a2sf/policy.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "policy/hooks/lowest_first.h"

namespace a2sf {

// A ranking serves until a head may have lost an eighth of its ranked tokens: at a budget of 256 and 32 recent tokens
// every 28th row pays for one. The end of a prompt is ranked afresh, since its last rows say what is asked for. The
// scores lie in a number beside each token, so that they move with it.
class RankingHook : public Hook {
 public:
  static constexpr HookNeeds with_rank(HookNeeds needs) {
    needs.numbers = 1;
    return needs;
  }

  explicit RankingHook(const HookShape& shape) : serves_(static_cast<std::size_t>(shape.layers)) {}

  void evict(HookLayer& layer) final {
    std::int64_t& serves = serves_[static_cast<std::size_t>(layer.layer())];
    const std::int64_t wear = going(layer);
    if (layer.prompt_ends() || wear > serves) {
      rank(layer);
      serves = serving(ranked_) / 8;
    }
    serves -= wear;
    cut(layer);
  }

 protected:
  // scores: [slot], all 0. Gives those tokens that can be told apart a score above 0; the others have no rank.
  virtual void score(const HookHead& head, std::vector<float>& scores) = 0;
  // How many tokens go now: of the head that loses most.
  virtual std::int64_t going(const HookLayer& layer) const {
    std::int64_t most = 0;
    for (int h = 0; h < layer.kv_heads(); ++h) most = std::max(most, layer.head(h).held() - layer.head(h).budget());
    return most;
  }
  // Of how many ranked tokens those are a part, given how many may go of each bounded head: of the head with fewest.
  virtual std::int64_t serving(const std::vector<std::int64_t>& ranked) const {
    return ranked.empty() ? 0 : *std::min_element(ranked.begin(), ranked.end());
  }
  // Evicts them by their ranks.
  virtual void cut(HookLayer& layer) {
    for (int h = 0; h < layer.kv_heads(); ++h) {
      HookHead& head = layer.head(h);
      evict_lowest(head, ranks(head), head.budget(), victims_);
    }
  }
  // [slot]: tokens without a rank, which came after the ranking or were recent then, go last.
  const std::vector<float>& ranks(const HookHead& head) {
    scores_.resize(static_cast<std::size_t>(head.slots()));
    for (int slot = 0; slot < head.slots(); ++slot) {
      const float rank = head.number(slot, kRank);
      scores_[static_cast<std::size_t>(slot)] = rank > 0 ? rank : std::numeric_limits<float>::infinity();
    }
    return scores_;
  }

  std::vector<int> victims_;  // memory for a cut

 private:
  static constexpr int kRank = 0;

  void rank(HookLayer& layer) {
    ranked_.clear();
    for (int h = 0; h < layer.kv_heads(); ++h) {
      HookHead& head = layer.head(h);
      if (head.budget() == kKeepAll) continue;
      scores_.assign(static_cast<std::size_t>(head.slots()), 0.0F);
      score(head, scores_);
      ranked_.push_back(0);
      for (int slot = 0; slot < head.slots(); ++slot) {
        const float rank = scores_[static_cast<std::size_t>(slot)];
        head.set_number(slot, kRank, rank);
        ranked_.back() += static_cast<std::int64_t>(rank > 0 && head.may_go(slot));
      }
    }
  }

  std::vector<std::int64_t> serves_;  // [layer]: how many more tokens may go by the ranking
  std::vector<std::int64_t> ranked_;  // [bounded KV head of a layer]: tokens with a rank that may go
  std::vector<float> scores_;         // [slot], memory for one head
};

}  // namespace a2sf
