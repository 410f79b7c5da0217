// What hooks share whose scores cost many rows of attention, or a pass over all keys. They rank the tokens of a head
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

// The ranking of a head serves until an eighth of its ranked tokens may have gone: at a budget of 256 and 32 recent
// tokens every 28th row pays for one. The end of a prompt is ranked afresh, since its last rows say what is asked for.
// The scores lie in a number beside each token, so that they move with it.
class RankingHook : public Hook {
 public:
  static constexpr HookNeeds with_rank(HookNeeds needs) {
    needs.numbers = 1;
    return needs;
  }

  explicit RankingHook(const HookShape& shape) : serves_(static_cast<std::size_t>(shape.layers * shape.kv_heads)) {}

  void evict(HookLayer& layer) override {
    for (int h = 0; h < layer.kv_heads(); ++h) {
      HookHead& head = layer.head(h);
      rank_if_worn(layer, h, h + 1, std::max<std::int64_t>(0, head.held() - head.budget()));
      evict_lowest(head, ranks(head), head.budget(), victims_);
    }
  }

 protected:
  // scores: [slot], all 0. Gives those tokens that can be told apart a score above 0; the others have no rank.
  virtual void score(const HookHead& head, std::vector<float>& scores) = 0;
  // Before `going` tokens go of the heads from `first` to before `end`, which wear out one ranking together.
  void rank_if_worn(HookLayer& layer, int first, int end, std::int64_t going) {
    std::int64_t& serves = serves_[static_cast<std::size_t>(layer.layer() * layer.kv_heads() + first)];
    if (layer.prompt_ends() || going > serves) {
      std::int64_t ranked = 0;
      for (int h = first; h < end; ++h) ranked += rank(layer.head(h));
      serves = ranked / 8;
    }
    serves = std::max<std::int64_t>(0, serves - going);
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

  // How many tokens with a rank may go.
  std::int64_t rank(HookHead& head) {
    if (head.budget() == kKeepAll) return 0;
    scores_.assign(static_cast<std::size_t>(head.slots()), 0.0F);
    score(head, scores_);
    std::int64_t ranked = 0;
    for (int slot = 0; slot < head.slots(); ++slot) {
      const float rank = scores_[static_cast<std::size_t>(slot)];
      head.set_number(slot, kRank, rank);
      ranked += static_cast<std::int64_t>(rank > 0 && head.may_go(slot));
    }
    return ranked;
  }

  std::vector<std::int64_t> serves_;  // [layer][KV head]: how many more tokens may go by the ranking
  std::vector<float> scores_;         // [slot], memory for one head
};

}  // namespace a2sf
