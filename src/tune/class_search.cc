#include "tune/class_search.h"

#include <cmath>
#include <utility>

#include "tune/subplex.h"
#include "tune/text_cost.h"

namespace a2sf {
namespace {

// Logarithms to base 2.
constexpr double kLeast = -4, kMost = 4, kFirstFactorStep = 1, kFactorTolerance = 0.05;

// logs: a memory for each class, then a weight for each but the last.
void set_factors(TokenClasses& classes, std::span<const double> logs) {
  const std::size_t count = classes.classes.size();
  const auto factor = [&](std::size_t i) { return std::round(std::exp2(logs[i]) * 1e4) / 1e4; };
  for (std::size_t i = 0; i < count; ++i) {
    classes.classes[i].memory = factor(i);
    classes.classes[i].weight = i + 1 < count ? factor(count + i) : 1;
  }
}

}  // namespace

Result<TokenClasses> search_classes(const std::shared_ptr<const Model>& model, const TuneWindows& windows,
                                    TokenClasses classes, const ClassSearch& search, const TuneProgress& progress) {
  const std::size_t tokens = windows.length * windows.count;
  std::size_t done = 0;
  const auto counted = [&](std::size_t of_call, std::size_t) {
    return !progress || progress(done + of_call, search.calls * tokens);
  };
  const auto cost = [&](std::span<const double> logs) -> Result<double> {
    set_factors(classes, logs);
    PolicySpec spec = search.policy;
    std::get<Accumulate>(spec.score).classes = std::make_shared<const TokenClasses>(classes);
    auto loss = text_cost(model, windows, spec, TextCost::log_loss, counted);
    done += tokens;
    return loss;
  };
  const std::vector<double> start(2 * classes.classes.size() - 1, 0.0);
  const auto best = search_subplex(start, {kLeast, kMost, kFirstFactorStep, kFactorTolerance, search.calls}, cost);
  if (!best) return tl::unexpected(best.error());
  set_factors(classes, *best);
  return classes;
}

}  // namespace a2sf
