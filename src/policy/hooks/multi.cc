// multi: the token with the lowest weighted sum of measures goes. A measure counts by the token's rank among those of
// the head that may go: the share of the others that have less of it, from 0 to 1. Sizes would not do: attention is so
// uneven that, divided by the largest, almost all tokens would have about 0. A positive weight keeps tokens that have
// much of a measure, a negative one lets them go.
//   attention   A of the recurrence
//   frequency   how often the token's id occurs in the text so far
//   textrank    PageRank over what the last rows attend to (attention_rank.h)
//   value       the L1 norm of the token's value
//   age         how long ago the token came
#include <a2sf/hook.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>

#include "policy/hooks/attention_rank.h"
#include "policy/hooks/hooks.h"
#include "policy/hooks/lowest_first.h"
#include "policy/hooks/options.h"
#include "policy/hooks/value_norm.h"

namespace a2sf {
namespace {

enum Measure { kAttention, kFrequency, kTextRank, kValue, kAge, kMeasures };
constexpr std::array<const char*, kMeasures> kNames = {"attention", "frequency", "textrank", "value", "age"};

using Weights = std::array<double, kMeasures>;
constexpr Weights kDefault = {1, 0, 0, 0.5, 0.5};
constexpr double kMostWeight = 100;

constexpr int kRows = 16;  // of attention, which make the graph of textrank

class MultiHook final : public Hook {
 public:
  explicit MultiHook(const Weights& weights) : weights_(weights) {}
  std::unique_ptr<Hook> clone() const override { return std::make_unique<MultiHook>(*this); }

  void evict(HookLayer& layer) override {
    if (weights_[kFrequency] != 0) count_ids(layer.token_ids());
    for (int h = 0; h < layer.kv_heads(); ++h) {
      HookHead& head = layer.head(h);
      if (head.held() <= head.budget()) continue;
      candidates_.clear();
      for (int slot = 0; slot < head.slots(); ++slot) {
        if (head.may_go(slot)) candidates_.push_back(slot);
      }
      scores_.assign(static_cast<std::size_t>(head.slots()), 0);
      for (int m = 0; m < kMeasures; ++m) {
        if (weights_[static_cast<std::size_t>(m)] == 0) continue;
        measure(static_cast<Measure>(m), layer, head);
        add_ranks(weights_[static_cast<std::size_t>(m)]);
      }
      evict_lowest(head, scores_, head.budget(), victims_);
    }
  }

 private:
  // Only those that were not counted yet. In a prompt a layer starts at earlier tokens than the one before it ended.
  void count_ids(std::span<const std::int32_t> ids) {
    if (ids.size() < counted_) {
      counts_.clear();
      counted_ = 0;
    }
    for (const std::int32_t id : ids.subspan(counted_)) {
      const auto at = static_cast<std::size_t>(id);
      if (at >= counts_.size()) counts_.resize(at + 1, 0);
      ++counts_[at];
    }
    counted_ = ids.size();
  }

  // Sets measured_, in the order of the candidates.
  void measure(Measure measure, const HookLayer& layer, HookHead& head) {
    const std::vector<double>* text_ranks = measure == kTextRank ? &rank_.compute(layer, head, kRows) : nullptr;
    measured_.clear();
    for (const int slot : candidates_) {
      const auto position = static_cast<std::size_t>(head.position(slot));
      switch (measure) {
        case kAttention:
          measured_.push_back(head.score(slot));
          break;
        case kFrequency:
          measured_.push_back(counts_[static_cast<std::size_t>(layer.token_ids()[position])]);
          break;
        case kTextRank:
          measured_.push_back((*text_ranks)[static_cast<std::size_t>(slot)]);
          break;
        case kValue:
          measured_.push_back(value_norm(head, slot, 0, value_));
          break;
        case kAge:
          measured_.push_back(-static_cast<double>(position));
          break;
        case kMeasures:
          break;
      }
    }
  }

  void add_ranks(double weight) {
    sorted_ = measured_;
    std::sort(sorted_.begin(), sorted_.end());
    const double others = std::max(1.0, static_cast<double>(sorted_.size()) - 1);
    for (std::size_t i = 0; i < candidates_.size(); ++i) {
      const auto less = std::lower_bound(sorted_.begin(), sorted_.end(), measured_[i]) - sorted_.begin();
      scores_[static_cast<std::size_t>(candidates_[i])] += weight * static_cast<double>(less) / others;
    }
  }

  Weights weights_;
  std::vector<int> counts_;  // by token id
  std::size_t counted_ = 0;  // tokens
  AttentionRank rank_;
  std::vector<float> value_;
  std::vector<int> candidates_;
  std::vector<double> measured_, sorted_;  // of the candidates
  std::vector<double> scores_;
  std::vector<int> victims_;
};

class Multi final : public HookFactory {
 public:
  std::string_view name() const override { return "multi"; }
  HookNeeds needs() const override {
    const bool values = weights_[kValue] != 0;
    return {.last_rows = weights_[kTextRank] != 0 ? kRows : 0, .keys_values = values, .numbers = values ? 1 : 0};
  }
  std::unique_ptr<Hook> make(const HookShape&) const override { return std::make_unique<MultiHook>(weights_); }
  Result<std::shared_ptr<const HookFactory>> with(std::string_view option, std::string_view value) const override {
    const auto name = std::find(kNames.begin(), kNames.end(), option);
    if (name == kNames.end()) return HookFactory::with(option, value);
    const auto weight = read_number(option, value, -kMostWeight, kMostWeight);
    if (!weight) return tl::unexpected(weight.error());
    auto changed = std::make_shared<Multi>(*this);
    changed->weights_[static_cast<std::size_t>(name - kNames.begin())] = *weight;
    return changed;
  }
  std::string options() const override {
    std::string text;
    for (std::size_t m = 0; m < kNames.size(); ++m) {
      if (weights_[m] != kDefault[m]) text += fmt::format(":{}={}", kNames[m], weights_[m]);
    }
    return text;
  }

 private:
  Weights weights_ = kDefault;
};

}  // namespace

std::shared_ptr<const HookFactory> multi() { return std::make_shared<Multi>(); }

}  // namespace a2sf
