#include "tune/choose_policy.h"

#include <cmath>
#include <utility>

namespace a2sf {
namespace {

class Chooser {
 public:
  Chooser(const std::shared_ptr<const Model>& model, std::span<const std::int32_t> tokens,
          std::span<const PolicySpec> policies, const TuneOptions& options, const TuneProgress& progress)
      : model_(model), tokens_(tokens), policies_(policies), options_(options), progress_(progress) {}

  Result<ChosenPolicy> run() {
    ChosenPolicy best;
    double least = 0;
    for (std::size_t i = 0; i < policies_.size(); ++i) {
      options_.policy = policies_[i];
      auto budgets = tune_budgets(model_, tokens_, options_, counted());
      if (!budgets) return tl::unexpected(budgets.error());
      done_ += total_;
      if (policies_.size() == 1) return ChosenPolicy{0, std::move(*budgets)};
      const auto cost = mean_log_divergence(*budgets);
      if (!cost) return tl::unexpected(cost.error());
      if (i == 0 || *cost < least) {
        least = *cost;
        best = {i, std::move(*budgets)};
      }
    }
    return best;
  }

 private:
  // A policy's part of the work is its tuning; what it comes to is little beside that.
  TuneProgress counted() {
    return [this](std::size_t done, std::size_t total) {
      total_ = total;
      return !progress_ || progress_(done_ + done, total * policies_.size());
    };
  }

  Result<double> mean_log_divergence(const TunedBudgets& budgets) const {
    double sum = 0;
    for (const ShareTable& table : budgets.tables) {
      PolicySpec spec = with_budget(options_.policy, table.mean);
      spec.budget.layers = budgets.bounded;
      if (auto shared = share_by(spec, std::make_shared<const Profile>(Profile{.tables = {table}})); !shared)
        return tl::unexpected(shared.error());
      const auto keep_going = [this](std::size_t, std::size_t) {
        return !progress_ || progress_(done_, total_ * policies_.size());
      };
      const auto divergence =
          text_cost(model_, windows_for(table.mean, tokens_, options_), spec, TextCost::divergence, keep_going);
      if (!divergence) return divergence;
      sum += std::log(std::max(*divergence, 1e-12));
    }
    return sum / static_cast<double>(budgets.tables.size());
  }

  const std::shared_ptr<const Model>& model_;
  std::span<const std::int32_t> tokens_;
  std::span<const PolicySpec> policies_;
  TuneOptions options_;
  const TuneProgress& progress_;
  std::size_t done_ = 0, total_ = 0;
};

}  // namespace

Result<ChosenPolicy> choose_policy(const std::shared_ptr<const Model>& model, std::span<const std::int32_t> tokens,
                                   std::span<const PolicySpec> policies, const TuneOptions& options,
                                   const TuneProgress& progress) {
  return Chooser(model, tokens, policies, options, progress).run();
}

}  // namespace a2sf
