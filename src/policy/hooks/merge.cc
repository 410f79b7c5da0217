// merge: the token of the lowest A goes, but its value is merged into that of the kept token whose key is most similar,
// if their cosine is at least `threshold` (after D2O, arXiv 2406.13035). The value becomes the mean of both, weighted
// by A times the number of tokens that each stands for. Between tokens that were never merged this preserves what
// attention has read from them; later the product stands in for the sum of their A, since a hook cannot change A. D2O's
// weights depend on the cosine alone: a token that is hardly attended to makes up nearly half of the result.
//
// Only values merge, as in CaM (ICML 2024): keys are stored rotated, and the mean of two rotated keys has no position.
// Attention does not know the count either: a token that stands for many still gets the probability of one.
#include <a2sf/hook.h>

#include "policy/hooks/hooks.h"
#include "policy/hooks/lowest_first.h"
#include "policy/hooks/number_option.h"
#include "policy/hooks/unit_keys.h"

namespace a2sf {
namespace {

constexpr double kLeastCosine = 0.9;

// A slot's number: how many tokens were merged into its own.
constexpr int kMerged = 0;

class MergeHook final : public Hook {
 public:
  explicit MergeHook(double threshold) : threshold_(static_cast<float>(threshold)) {}
  std::unique_ptr<Hook> clone() const override { return std::make_unique<MergeHook>(*this); }

  void evict(HookLayer& layer) override {
    for (int h = 0; h < layer.kv_heads(); ++h) {
      HookHead& head = layer.head(h);
      if (head.held() <= head.budget()) continue;
      choose_victims(head);
      kept_keys_.read(head, kept_);
      victim_keys_.read(head, victims_);
      for (std::size_t v = 0; v < victims_.size(); ++v) {
        const Nearest nearest = nearest_kept(victim_keys_[v]);
        if (nearest.cosine >= threshold_) merge(head, victims_[v], nearest.slot);
        head.evict(victims_[v]);
      }
    }
  }

 private:
  struct Nearest {
    int slot;
    float cosine;
  };

  void choose_victims(const HookHead& head) {
    scores_.assign(static_cast<std::size_t>(head.slots()), 0);
    for (int slot = 0; slot < head.slots(); ++slot) scores_[static_cast<std::size_t>(slot)] = head.score(slot);
    select_lowest(head, scores_, head.budget(), victims_);
    goes_.assign(static_cast<std::size_t>(head.slots()), false);
    for (const int slot : victims_) goes_[static_cast<std::size_t>(slot)] = true;
    kept_.clear();
    for (int slot = 0; slot < head.slots(); ++slot) {
      if (head.position(slot) >= 0 && !goes_[static_cast<std::size_t>(slot)]) kept_.push_back(slot);
    }
    sort_by_position(head, kept_);
  }

  // Of equal cosines the older token. No cosine is as low as -2.
  Nearest nearest_kept(std::span<const float> key) const {
    Nearest nearest{-1, -2};
    for (std::size_t k = 0; k < kept_.size(); ++k) {
      const float cosine = dot(key, kept_keys_[k]);
      if (cosine > nearest.cosine) nearest = {kept_[k], cosine};
    }
    return nearest;
  }

  void merge(HookHead& head, int victim, int kept) {
    const float goes = 1 + head.number(victim, kMerged), stays = 1 + head.number(kept, kMerged);
    const float read = goes * head.score(victim) + stays * head.score(kept);
    if (!(read > 0)) return;  // neither has been attended to
    const float share = goes * head.score(victim) / read;
    const auto dim = static_cast<std::size_t>(head.head_dim());
    victim_value_.resize(dim);
    kept_value_.resize(dim);
    head.read_value(victim, victim_value_);
    head.read_value(kept, kept_value_);
    for (std::size_t d = 0; d < dim; ++d) kept_value_[d] += share * (victim_value_[d] - kept_value_[d]);
    head.write_value(kept, kept_value_);
    head.set_number(kept, kMerged, goes + stays - 1);
  }

  float threshold_;
  std::vector<float> scores_;
  std::vector<int> victims_, kept_;  // slots; the kept ones by position
  std::vector<bool> goes_;           // [slot]
  UnitKeys victim_keys_, kept_keys_;
  std::vector<float> victim_value_, kept_value_;
};

class Merge final : public NumberOptionFactory<Merge> {
 public:
  Merge() : NumberOptionFactory({"threshold", -1, 1, kLeastCosine}) {}
  std::string_view name() const override { return "merge"; }
  HookNeeds needs() const override { return {.keys_values = true, .numbers = 1}; }
  std::unique_ptr<Hook> make(const HookShape&) const override { return std::make_unique<MergeHook>(number()); }
};

}  // namespace

std::shared_ptr<const HookFactory> merge() { return std::make_shared<Merge>(); }

}  // namespace a2sf
