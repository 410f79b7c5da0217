#include "tune/layer_weights.h"

#include <algorithm>

#include "eval/compare.h"

namespace a2sf {
namespace {

PolicySpec bounded_in(int layer, PolicySpec spec, std::int64_t budget) {
  spec.budget = {BudgetCount{budget}, {{layer, layer}}};
  return spec;
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + std::ssize(values) / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// Each layer's KL over the sum of its damages and the rounding, where both are made comparable by the median layer.
std::vector<double> weights_of(const std::vector<double>& divergence, const std::vector<double>& damage) {
  const double rounding = *std::min_element(divergence.begin(), divergence.end());
  std::vector<double> ratios;
  for (std::size_t layer = 0; layer < damage.size(); ++layer) {
    if (damage[layer] > 0) ratios.push_back((divergence[layer] - rounding) / damage[layer]);
  }
  const double ratio = ratios.empty() ? 0 : median(std::move(ratios));
  std::vector<double> weights;
  for (std::size_t layer = 0; layer < damage.size(); ++layer) {
    const double expected = ratio * damage[layer] + rounding;
    weights.push_back(expected > 0 && divergence[layer] > 0 ? divergence[layer] / expected : 1);
  }
  return weights;
}

}  // namespace

Result<std::vector<double>> measure_layer_weights(const std::shared_ptr<const Model>& model,
                                                  std::span<const std::int32_t> window, const PolicySpec& spec,
                                                  const DamageLadder& ladder, std::size_t rung,
                                                  const TuneProgress& progress) {
  std::vector<PolicySpec> specs;
  for (int layer = 0; layer < model->info().layers; ++layer)
    specs.push_back(bounded_in(layer, spec, ladder.budgets[rung]));
  // Before the budget is full nothing is lost.
  const CompareOptions options{.prompt = std::min(window.size() / 4, static_cast<std::size_t>(ladder.budgets[rung])),
                               .decode = 0};
  const auto report = compare(model, window, specs, options, progress);
  if (!report) return tl::unexpected(report.error());
  std::vector<double> divergence, damage;
  for (std::size_t layer = 0; layer < specs.size(); ++layer) {
    divergence.push_back(report->rows[layer + 1].kl_to_full);
    double& sum = damage.emplace_back(0);
    for (const auto& head : ladder.damage[layer]) sum += head[rung];
  }
  return weights_of(divergence, damage);
}

void weigh(DamageLadder& ladder, std::span<const double> layer_weights) {
  for (std::size_t layer = 0; layer < ladder.damage.size(); ++layer) {
    for (auto& head : ladder.damage[layer]) {
      for (double& damage : head) damage *= layer_weights[layer];
    }
  }
}

}  // namespace a2sf
