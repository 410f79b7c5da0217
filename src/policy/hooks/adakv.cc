// AdaKV (arXiv 2407.11550): SnapKV's scores of all heads of a layer compete for the layer's budget, and each head is
// sure of a fifth of its own, as in kvpress (alpha_safeguard). The authors' code gives a head four fifths of what it
// wins and a fifth of an even share instead.
#include <algorithm>
#include <tuple>

#include "policy/hooks/hooks.h"
#include "policy/hooks/snapkv.h"

namespace a2sf {
namespace {

struct Candidate {
  float score;
  int kv_head, slot;
  std::int32_t position;
};

// The lower score goes first; of equal ones the lower head's, then the older.
bool goes_later(const Candidate& a, const Candidate& b) {
  return std::tie(a.score, a.kv_head, a.position) > std::tie(b.score, b.kv_head, b.position);
}

class AdaKvHook final : public SnapKvHook {
 public:
  using SnapKvHook::SnapKvHook;
  std::unique_ptr<Hook> clone() const override { return std::make_unique<AdaKvHook>(*this); }

  void evict(HookLayer& layer) override {
    rank_if_worn(layer, 0, layer.kv_heads(), going(layer));
    candidates_.clear();
    for (int h = 0; h < layer.kv_heads(); ++h) {
      if (is_bounded(layer.head(h))) cut_to_capacity(layer.head(h), h);
    }
    std::make_heap(candidates_.begin(), candidates_.end(), goes_later);
    for (std::int64_t left = going(layer); left > 0 && !candidates_.empty(); candidates_.pop_back()) {
      std::pop_heap(candidates_.begin(), candidates_.end(), goes_later);
      const Candidate& lowest = candidates_.back();
      HookHead& head = layer.head(lowest.kv_head);
      if (head.held() <= sure_of(head)) continue;
      head.evict(lowest.slot);
      --left;
    }
  }

 private:
  static bool is_bounded(const HookHead& head) { return head.budget() != kKeepAll; }
  static std::int64_t sure_of(const HookHead& head) { return std::max<std::int64_t>(1, head.budget() / 5); }

  // What one head has too many, others may have too few. What is beyond a head's capacity goes even so.
  static std::int64_t going(const HookLayer& layer) {
    std::int64_t over_budgets = 0, over_capacities = 0;
    for (int h = 0; h < layer.kv_heads(); ++h) {
      const HookHead& head = layer.head(h);
      if (!is_bounded(head)) continue;
      over_budgets += head.held() - head.budget();
      over_capacities += std::max<std::int64_t>(0, head.held() - head.capacity());
    }
    return std::max(over_budgets, over_capacities);
  }
  void cut_to_capacity(HookHead& head, int kv_head) {
    const std::vector<float>& scores = ranks(head);
    evict_lowest(head, scores, head.capacity(), victims_);
    for (int slot = 0; slot < head.slots(); ++slot) {
      if (head.may_go(slot))
        candidates_.push_back({scores[static_cast<std::size_t>(slot)], kv_head, slot, head.position(slot)});
    }
  }

  std::vector<Candidate> candidates_;  // a heap: the next to go is first
};

// A head holds at most twice its budget, which the paper does not limit: the memory must be known beforehand.
class AdaKv final : public SnapKvFactory<AdaKv> {
 public:
  std::string_view name() const override { return "adakv"; }
  std::int64_t capacity(std::int64_t budget) const override { return std::min(2 * budget, kKeepAll - 1); }
  std::unique_ptr<Hook> make(const HookShape& shape) const override {
    return std::make_unique<AdaKvHook>(shape, window_);
  }
};

}  // namespace

std::shared_ptr<const HookFactory> adakv() { return std::make_shared<AdaKv>(); }

}  // namespace a2sf
