// KeyDiff (arXiv 2504.15364): the key that is most like the others goes, however much attention it got.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "policy/hooks/hooks.h"
#include "policy/hooks/ranking.h"

namespace a2sf {
namespace {

double length_of(const std::vector<double>& x) {
  return std::sqrt(std::inner_product(x.begin(), x.end(), x.begin(), 0.0));
}

class KeyDiffHook final : public RankingHook {
 public:
  using RankingHook::RankingHook;
  std::unique_ptr<Hook> clone() const override { return std::make_unique<KeyDiffHook>(*this); }

 private:
  // 1 - cos(k, m), where m is the mean of all keys at length 1.
  void score(const HookHead& head, std::vector<float>& scores) override {
    key_.resize(static_cast<std::size_t>(head.head_dim()));
    mean_.assign(key_.size(), 0.0);
    for_each_direction(head, [&](int) { add_to_mean(); });
    const double length = length_of(mean_);
    if (!(length > 0)) return;
    for_each_direction(head, [&](int slot) {
      const double cosine = std::inner_product(unit_.begin(), unit_.end(), mean_.begin(), 0.0) / length;
      scores[static_cast<std::size_t>(slot)] =
          std::max(static_cast<float>(1 - cosine), std::numeric_limits<float>::min());
    });
  }

  // Calls act(slot) with the slot's key at length 1 in unit_.
  template <class Act>
  void for_each_direction(const HookHead& head, Act act) {
    for (int slot = 0; slot < head.slots(); ++slot) {
      if (head.position(slot) < 0) continue;
      head.read_key(slot, key_);
      unit_.assign(key_.begin(), key_.end());
      const double length = length_of(unit_);
      for (double& x : unit_) x /= length > 0 ? length : 1;
      act(slot);
    }
  }
  void add_to_mean() {
    for (std::size_t i = 0; i < unit_.size(); ++i) mean_[i] += unit_[i];
  }

  std::vector<float> key_;
  std::vector<double> unit_, mean_;  // the mean times the number of keys: a cosine does not depend on its length
};

class KeyDiff final : public HookFactory {
 public:
  std::string_view name() const override { return "keydiff"; }
  HookNeeds needs() const override { return RankingHook::with_rank({.keys_values = true}); }
  std::unique_ptr<Hook> make(const HookShape& shape) const override { return std::make_unique<KeyDiffHook>(shape); }
};

}  // namespace

std::shared_ptr<const HookFactory> keydiff() { return std::make_shared<KeyDiff>(); }

}  // namespace a2sf
