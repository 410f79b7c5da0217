// TOVA as published (arXiv 2401.06104): the last row's probabilities are averaged over all heads of a layer,
// so that one token leaves all of its KV heads. The row `tova` chooses for each KV head by itself.
#include <a2sf/policy.h>

#include <algorithm>
#include <vector>

#include "policy/hooks/hooks.h"
#include "policy/hooks/lowest_first.h"

namespace a2sf {
namespace {

// A, with alpha 0, is what the last row gave.
class TovaMeanHook final : public Hook {
 public:
  std::unique_ptr<Hook> clone() const override { return std::make_unique<TovaMeanHook>(*this); }

  // All heads are summed up before one evicts.
  void evict(HookLayer& layer) override {
    sum_up(layer);
    for (int h = 0; h < layer.kv_heads(); ++h) {
      HookHead& head = layer.head(h);
      if (!is_bounded(head)) continue;
      scores_.assign(static_cast<std::size_t>(head.slots()), 0);
      for_each_token(head, [&](int slot, double sum) { scores_[static_cast<std::size_t>(slot)] = sum; });
      evict_lowest(head, scores_, head.budget(), victims_);
    }
  }

 private:
  // The others have no scores, but for what is left of them where a resize has freed a head.
  static bool is_bounded(const HookHead& head) { return head.budget() != kKeepAll; }

  // Sums rank as means do. A head whose budget is smaller than another's adds nothing to tokens that it has evicted.
  void sum_up(const HookLayer& layer) {
    sums_.resize(std::max(sums_.size(), static_cast<std::size_t>(layer.position()) + 1));
    for (int h = 0; h < layer.kv_heads(); ++h) for_each_token(layer.head(h), [](int, double& sum) { sum = 0; });
    for (int h = 0; h < layer.kv_heads(); ++h) {
      const HookHead& head = layer.head(h);
      if (is_bounded(head))
        for_each_token(head, [&](int slot, double& sum) { sum += static_cast<double>(head.score(slot)); });
    }
  }

  // Calls act(slot, the sum of its position).
  template <class Act>
  void for_each_token(const HookHead& head, Act act) {
    for (int slot = 0; slot < head.slots(); ++slot) {
      const std::int32_t position = head.position(slot);
      if (position >= 0) act(slot, sums_[static_cast<std::size_t>(position)]);
    }
  }

  std::vector<double> sums_;    // [position], valid where a head holds it
  std::vector<double> scores_;  // [slot], memory for one head
  std::vector<int> victims_;
};

class TovaMean final : public HookFactory {
 public:
  std::string_view name() const override { return "tova-mean"; }
  std::unique_ptr<Hook> make(const HookShape&) const override { return std::make_unique<TovaMeanHook>(); }
};

}  // namespace

std::shared_ptr<const HookFactory> tova_mean() { return std::make_shared<TovaMean>(); }

}  // namespace a2sf
