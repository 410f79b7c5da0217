// TOVA as published (arXiv 2401.06104): the last row's probabilities are averaged over all heads of a layer,
// so that one token leaves all of its KV heads. The row `tova` chooses for each KV head by itself.
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
    sums_.resize(static_cast<std::size_t>(layer.kv_heads()));
    for (int h = 0; h < layer.kv_heads(); ++h) sum_up(layer, layer.head(h), sums_[static_cast<std::size_t>(h)]);
    for (int h = 0; h < layer.kv_heads(); ++h)
      evict_lowest(layer.head(h), sums_[static_cast<std::size_t>(h)], layer.head(h).budget(), victims_);
  }

 private:
  // sums: [slot of the head], of the scores of the same positions in all heads. Sums rank as means do.
  static void sum_up(const HookLayer& layer, const HookHead& head, std::vector<double>& sums) {
    sums.assign(static_cast<std::size_t>(head.slots()), 0.0);
    for (int slot = 0; slot < head.slots(); ++slot) {
      if (!head.may_go(slot)) continue;
      for (int h = 0; h < layer.kv_heads(); ++h) {
        const int same = slot_of(layer.head(h), head.position(slot), slot);
        if (same >= 0) sums[static_cast<std::size_t>(slot)] += static_cast<double>(layer.head(h).score(same));
      }
    }
  }

  // -1: the head has no such token, since its budget is another. Otherwise heads give a token the same slot.
  static int slot_of(const HookHead& head, std::int32_t position, int likely) {
    if (likely < head.slots() && head.position(likely) == position) return likely;
    for (int slot = 0; slot < head.slots(); ++slot) {
      if (head.position(slot) == position) return slot;
    }
    return -1;
  }

  std::vector<std::vector<double>> sums_;  // [KV head][slot]
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
