#include <a2sf/hook.h>
#include <a2sf/policy.h>

#include <algorithm>

#include "policy/hooks/hooks.h"
#include "policy/retention.h"

namespace a2sf {
namespace {

// The token that goes next of one head; the older one of equal scores. -1: none may go.
int weakest(const HookHead& head) {
  int weakest = -1;
  for (int slot = 0; slot < head.slots(); ++slot) {
    if (!head.may_go(slot)) continue;
    if (weakest < 0 || goes_before(head.score(slot), head.position(slot), head.score(weakest), head.position(weakest)))
      weakest = slot;
  }
  return weakest;
}

// What is known of one head between two evictions.
struct LowestOfHead {
  HookHead* head;
  int slot;

  bool is_over_capacity() const { return head->held() > head->capacity(); }
};

class SharedBudgetHook final : public Hook {
 public:
  std::unique_ptr<Hook> clone() const override { return std::make_unique<SharedBudgetHook>(*this); }

  void evict(HookLayer& layer) override {
    candidates_.clear();
    std::int64_t excess = 0;
    for (int h = 0; h < layer.kv_heads(); ++h) {
      HookHead& head = layer.head(h);
      if (head.budget() == kKeepAll) continue;
      candidates_.push_back({&head, weakest(head)});
      excess += head.held() - head.budget();
    }
    while (LowestOfHead* next = next_of(excess > 0)) {
      next->head->evict(next->slot);
      next->slot = weakest(*next->head);
      --excess;
    }
  }

 private:
  // A head over its capacity comes first; then, while the layer is over its budgets, the lowest score. Equal scores:
  // the lower head.
  LowestOfHead* next_of(bool layer_is_over) {
    LowestOfHead* next = nullptr;
    for (LowestOfHead& candidate : candidates_) {
      if (candidate.slot < 0) continue;
      if (candidate.is_over_capacity()) return &candidate;
      if (!layer_is_over || candidate.head->held() <= 1) continue;
      if (next == nullptr || candidate.head->score(candidate.slot) < next->head->score(next->slot)) next = &candidate;
    }
    return next;
  }

  std::vector<LowestOfHead> candidates_;
};

}  // namespace

std::shared_ptr<const HookFactory> shared_budget() { return std::make_shared<SharedBudget>(); }

std::int64_t SharedBudget::capacity(std::int64_t budget) const { return std::min(2 * budget, kKeepAll - 1); }
std::unique_ptr<Hook> SharedBudget::make(const HookShape&) const { return std::make_unique<SharedBudgetHook>(); }

}  // namespace a2sf
