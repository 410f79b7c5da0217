// r-kv: what is little attended to, or much like the others, goes (R-KV, arXiv 2505.24133): the lowest
//   lambda I - (1 - lambda) R
// The importance I is the token's share of the head's accumulated attention A; the paper takes the attention of the
// last queries. The redundancy R follows the published code: the softmax over the head of the mean cosine of the
// token's key to the others. Of similar tokens the newest should stay, so for each token the newest similar one is not
// charged with their cosine. Where only two are similar, neither is charged.
#include <a2sf/hook.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "policy/hooks/hooks.h"
#include "policy/hooks/lowest_first.h"
#include "policy/hooks/number_option.h"
#include "policy/hooks/unit_keys.h"

namespace a2sf {
namespace {

constexpr double kLambda = 0.3;   // the paper has 0.1, its code 0.07, for another importance
constexpr float kSimilar = 0.5F;  // two keys are similar if their cosine is above it (the published code)

class RedundancyHook final : public Hook {
 public:
  explicit RedundancyHook(double lambda) : lambda_(lambda) {}
  std::unique_ptr<Hook> clone() const override { return std::make_unique<RedundancyHook>(*this); }

  void evict(HookLayer& layer) override {
    for (int h = 0; h < layer.kv_heads(); ++h) {
      HookHead& head = layer.head(h);
      if (head.held() <= head.budget()) continue;
      find_redundancy(head);
      double attention = 0;
      for (const int slot : slots_) attention += head.score(slot);
      scores_.assign(static_cast<std::size_t>(head.slots()), 0);
      for (std::size_t i = 0; i < slots_.size(); ++i) {
        const double importance = attention > 0 ? head.score(slots_[i]) / attention : 0;
        scores_[static_cast<std::size_t>(slots_[i])] = lambda_ * importance - (1 - lambda_) * redundancy_[i];
      }
      evict_lowest(head, scores_, head.budget(), victims_);
    }
  }

 private:
  void find_redundancy(const HookHead& head) {
    slots_.clear();
    for (int slot = 0; slot < head.slots(); ++slot) {
      if (head.position(slot) >= 0) slots_.push_back(slot);
    }
    sort_by_position(head, slots_);
    keys_.read(head, slots_);
    average_cosines(head.head_dim());
    const double most = *std::max_element(redundancy_.begin(), redundancy_.end());
    for (double& r : redundancy_) r = std::exp(r - most);
    const double sum = std::accumulate(redundancy_.begin(), redundancy_.end(), 0.0);
    for (double& r : redundancy_) r /= sum;
  }

  // The sum of all cosines of a key is one product with the sum of keys. Single cosines are needed only until the
  // newest similar key is found. The mean counts the token itself, as the published code does.
  void average_cosines(int dim) {
    const std::size_t count = slots_.size();
    sum_.assign(static_cast<std::size_t>(dim), 0);
    for (std::size_t i = 0; i < count; ++i) {
      for (std::size_t d = 0; d < sum_.size(); ++d) sum_[d] += keys_[i][d];
    }
    redundancy_.resize(count);
    for (std::size_t i = 0; i < count; ++i) redundancy_[i] = dot(keys_[i], sum_) - dot(keys_[i], keys_[i]);
    for (std::size_t i = 0; i < count; ++i) {
      for (std::size_t newest = count; newest-- > 0;) {
        const float cosine = newest == i ? 0 : dot(keys_[i], keys_[newest]);
        if (cosine <= kSimilar) continue;
        redundancy_[newest] -= cosine;
        break;
      }
    }
    for (double& r : redundancy_) r /= static_cast<double>(count);
  }

  double lambda_;
  std::vector<int> slots_;  // by position
  UnitKeys keys_;
  std::vector<float> sum_;
  std::vector<double> redundancy_;  // of slots_
  std::vector<double> scores_;
  std::vector<int> victims_;
};

class Redundancy final : public NumberOptionFactory<Redundancy> {
 public:
  Redundancy() : NumberOptionFactory({"lambda", 0, 1, kLambda}) {}
  std::string_view name() const override { return "r-kv"; }
  HookNeeds needs() const override { return {.keys_values = true}; }
  std::unique_ptr<Hook> make(const HookShape&) const override { return std::make_unique<RedundancyHook>(number()); }
};

}  // namespace

std::shared_ptr<const HookFactory> redundancy() { return std::make_shared<Redundancy>(); }

}  // namespace a2sf
