#include "tune/multi_weights.h"

#include <fmt/format.h>

#include <array>
#include <cmath>

#include "eval/segments.h"
#include "tune/subplex.h"
#include "tune/text_cost.h"

namespace a2sf {
namespace {

constexpr std::size_t kMeasures = 5;
constexpr std::array<const char*, kMeasures> kNames = {"attention", "frequency", "textrank", "value", "age"};
constexpr std::array<double, kMeasures> kStandard = {1, 0, 0, 0.5, 0.5};
constexpr double kLargest = 2, kFirstWeightStep = 0.25, kWeightTolerance = 0.02;

using Weights = std::array<double, kMeasures>;

// Attention's is 1. Two digits: what is measured is known no better.
Weights weights_at(std::span<const double> point) {
  Weights weights = {1};
  for (std::size_t m = 1; m < kMeasures; ++m) weights[m] = std::round(point[m - 1] * 100) / 100;
  return weights;
}

Result<PolicySpec> spec_of(const Weights& weights, std::int64_t budget) {
  auto spec = parse_policy(fmt::format("multi:budget={}", budget));
  for (std::size_t m = 0; spec && m < kMeasures; ++m) {
    if (auto set = set_option(*spec, kNames[m], fmt::format("{}", weights[m])); !set)
      return tl::unexpected(set.error());
  }
  return spec;
}

class WeightTuner {
 public:
  WeightTuner(const std::shared_ptr<const Model>& model, const TuneWindows& windows, const MultiOptions& options,
              const TuneProgress& progress)
      : model_(model), windows_(windows), options_(options), progress_(progress) {}

  Result<MultiWeights> run() {
    const auto point = search_subplex({kStandard.begin() + 1, kStandard.end()},
                                      {-kLargest, kLargest, kFirstWeightStep, kWeightTolerance, options_.calls},
                                      [&](std::span<const double> tried) { return loss_of(weights_at(tried)); });
    if (!point) return tl::unexpected(point.error());
    calls_ = options_.calls;
    const Weights best = weights_at(*point);
    const auto loss = loss_of(best);
    auto spec = spec_of(best, options_.budget);
    if (!loss) return tl::unexpected(loss.error());
    if (!spec) return tl::unexpected(spec.error());
    MultiWeights found{std::move(*spec), *loss, {}};
    if (auto added = add(found, "standard weights", kStandard); !added) return tl::unexpected(added.error());
    for (std::size_t m = 0; m < kMeasures; ++m) {
      if (best[m] == 0) continue;
      Weights without = best;
      without[m] = 0;
      if (auto added = add(found, fmt::format("without {}", kNames[m]), without); !added)
        return tl::unexpected(added.error());
    }
    return found;
  }

 private:
  Status add(MultiWeights& found, std::string name, const Weights& weights) {
    const auto loss = loss_of(weights);
    if (!loss) return tl::unexpected(loss.error());
    found.others.push_back({std::move(name), *loss});
    return {};
  }

  Result<double> loss_of(const Weights& weights) {
    const auto spec = spec_of(weights, options_.budget);
    if (!spec) return tl::unexpected(spec.error());
    const std::size_t once = windows_.count * windows_.length;
    // What was found and the others come after the search.
    const std::size_t total = (options_.calls + 2 + kMeasures) * once, before = calls_++ * once;
    return text_cost(model_, windows_, *spec, TextCost::log_loss,
                     [&](std::size_t done, std::size_t) { return !progress_ || progress_(before + done, total); });
  }

  const std::shared_ptr<const Model>& model_;
  const TuneWindows& windows_;
  const MultiOptions& options_;
  const TuneProgress& progress_;
  std::size_t calls_ = 0;
};

}  // namespace

Result<MultiWeights> tune_multi(const std::shared_ptr<const Model>& model, const TuneWindows& windows,
                                const MultiOptions& options, const TuneProgress& progress) {
  if (static_cast<std::int64_t>(windows.length) <= options.budget) {
    return fail(ErrorKind::bad_input,
                fmt::format("a window of {} tokens evicts nothing at budget {}", windows.length, options.budget));
  }
  if (windows.tokens.size() < windows.length) {
    return fail(ErrorKind::bad_input,
                fmt::format("the text has {} tokens, fewer than one window of {}: choose a smaller --ctx",
                            windows.tokens.size(), windows.length));
  }
  if (auto valid = check_tokens(windows.tokens, model->info().vocabulary); !valid) return tl::unexpected(valid.error());
  return WeightTuner(model, windows, options, progress).run();
}

}  // namespace a2sf
