// vatp: the lowest A |v|_1 goes (VATP, arXiv 2406.12335). A token with a small value adds little to the output however
// much it is attended to.
#include <a2sf/hook.h>

#include "policy/hooks/hooks.h"
#include "policy/hooks/lowest_first.h"
#include "policy/hooks/value_norm.h"

namespace a2sf {
namespace {

class VatpHook final : public Hook {
 public:
  std::unique_ptr<Hook> clone() const override { return std::make_unique<VatpHook>(*this); }

  void evict(HookLayer& layer) override {
    for (int h = 0; h < layer.kv_heads(); ++h) {
      HookHead& head = layer.head(h);
      if (head.held() <= head.budget()) continue;
      scores_.assign(static_cast<std::size_t>(head.slots()), 0);
      for (int slot = 0; slot < head.slots(); ++slot) {
        if (!head.may_go(slot)) continue;
        scores_[static_cast<std::size_t>(slot)] =
            static_cast<double>(head.score(slot)) * value_norm(head, slot, 0, value_);
      }
      evict_lowest(head, scores_, head.budget(), victims_);
    }
  }

 private:
  std::vector<double> scores_;
  std::vector<float> value_;
  std::vector<int> victims_;
};

class Vatp final : public HookFactory {
 public:
  std::string_view name() const override { return "vatp"; }
  HookNeeds needs() const override { return {.keys_values = true, .numbers = 1}; }
  std::unique_ptr<Hook> make(const HookShape&) const override { return std::make_unique<VatpHook>(); }
};

}  // namespace

std::shared_ptr<const HookFactory> vatp() { return std::make_shared<Vatp>(); }

}  // namespace a2sf
