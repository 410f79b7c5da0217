// lazy: a token that is attended to at intervals stays while its next time may still come (LazyEviction, arXiv
// 2506.15969). A row attends to a token if a query head of the group gives it at least `threshold`. The interval of a
// token is the longest time between two such rows, of which its own row is the first. The lowest
//   -(now - last attended) / interval
// goes. The paper takes 2 sigmoid of it, which orders tokens alike, and adds a term that favours short intervals. A
// token that was never attended to again has no interval and goes first.
#include <a2sf/hook.h>

#include <algorithm>
#include <limits>

#include "policy/hooks/hooks.h"
#include "policy/hooks/lowest_first.h"
#include "policy/hooks/number_option.h"

namespace a2sf {
namespace {

constexpr double kThreshold = 0.1;  // the published scripts have 0.0005 and 0.0001

// A slot's numbers. Positions are exact in floats up to 2^24.
enum LazyNumber { kLast, kInterval };

class LazyHook final : public Hook {
 public:
  explicit LazyHook(double threshold) : threshold_(static_cast<float>(threshold)) {}
  std::unique_ptr<Hook> clone() const override { return std::make_unique<LazyHook>(*this); }

  void observe(HookLayer& layer) override {
    const auto now = static_cast<float>(layer.position());
    for (int h = 0; h < layer.kv_heads(); ++h) {
      HookHead& head = layer.head(h);
      find_most_attended(head);
      for (int slot = 0; slot < head.slots(); ++slot) {
        if (head.position(slot) == layer.position()) {
          head.set_number(slot, kLast, now);
        } else if (most_[static_cast<std::size_t>(slot)] >= threshold_) {
          head.set_number(slot, kInterval, std::max(head.number(slot, kInterval), now - head.number(slot, kLast)));
          head.set_number(slot, kLast, now);
        }
      }
    }
  }

  void evict(HookLayer& layer) override {
    const auto now = static_cast<double>(layer.position());
    for (int h = 0; h < layer.kv_heads(); ++h) {
      HookHead& head = layer.head(h);
      if (head.held() <= head.budget()) continue;
      scores_.assign(static_cast<std::size_t>(head.slots()), -std::numeric_limits<double>::infinity());
      for (int slot = 0; slot < head.slots(); ++slot) {
        const double interval = head.number(slot, kInterval);
        if (interval > 0) scores_[static_cast<std::size_t>(slot)] = -(now - head.number(slot, kLast)) / interval;
      }
      evict_lowest(head, scores_, head.budget(), victims_);
    }
  }

 private:
  // [slot]: the most that a query head of the last row gave to each token; 0 in free slots.
  void find_most_attended(const HookHead& head) {
    most_.assign(static_cast<std::size_t>(head.slots()), 0);
    for (int g = 0; g < head.group(); ++g) {
      const auto probabilities = head.probabilities(0, g);
      for (std::size_t slot = 0; slot < most_.size(); ++slot) most_[slot] = std::max(most_[slot], probabilities[slot]);
    }
  }

  float threshold_;
  std::vector<float> most_;
  std::vector<double> scores_;
  std::vector<int> victims_;
};

class Lazy final : public NumberOptionFactory<Lazy> {
 public:
  Lazy() : NumberOptionFactory({"threshold", 0, 1, kThreshold}) {}
  std::string_view name() const override { return "lazy"; }
  HookNeeds needs() const override { return {.every_row = true, .last_rows = 1, .numbers = 2}; }
  std::unique_ptr<Hook> make(const HookShape&) const override { return std::make_unique<LazyHook>(number()); }
};

}  // namespace

std::shared_ptr<const HookFactory> lazy() { return std::make_shared<Lazy>(); }

}  // namespace a2sf
