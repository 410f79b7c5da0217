// SnapKV's scores, which AdaKV and PyramidKV share (arXiv 2404.14469, 2407.11550, 2406.02069).
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "policy/hooks/ranking.h"

namespace a2sf {

// The last rows vote by their probabilities, and the votes are averaged over a kernel: a token is worth its neighbours
// too.
struct ObservationWindow {
  int rows = 32, kernel = 5;

  // Sets "window" or "kernel". False: it has another name.
  Result<bool> set(std::string_view option, std::string_view value);
  std::string options() const;  // that differ from the default, as a policy text has them
};

class SnapKvHook : public RankingHook {
 public:
  SnapKvHook(const HookShape& shape, const ObservationWindow& window) : RankingHook(shape), window_(window) {}
  std::unique_ptr<Hook> clone() const override { return std::make_unique<SnapKvHook>(*this); }

 private:
  void score(const HookHead& head, std::vector<float>& scores) final;
  void find_older(const HookHead& head);
  void count_votes(const HookHead& head);

  ObservationWindow window_;
  std::vector<int> older_;     // slots of tokens before the recent ones, by position
  std::vector<double> votes_;  // of those
};

// What the factories of these hooks share: the window.
template <class Factory>
class SnapKvFactory : public HookFactory {
 public:
  HookNeeds needs() const override { return RankingHook::with_rank({.last_rows = window_.rows}); }
  Result<std::shared_ptr<const HookFactory>> with(std::string_view option, std::string_view value) const override {
    auto changed = std::make_shared<Factory>(static_cast<const Factory&>(*this));
    const auto known = changed->window_.set(option, value);
    if (!known) return tl::unexpected(known.error());
    return *known ? std::shared_ptr<const HookFactory>(changed) : HookFactory::with(option, value);
  }
  std::string options() const override { return window_.options(); }

 protected:
  ObservationWindow window_;
};

}  // namespace a2sf
