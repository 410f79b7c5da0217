#include "tune/text_cost.h"

#include <array>
#include <cmath>

#include "eval/masks.h"
#include "eval/perplexity.h"

namespace a2sf {
namespace {

Result<double> log_loss(const std::shared_ptr<const Model>& model, std::span<const std::int32_t> window,
                        const PolicySpec& spec, const TuneProgress& progress) {
  const auto report =
      perplexity(model, window, {.policy = spec, .window = window.size(), .score = ScoredPart::all}, progress);
  if (!report) return tl::unexpected(report.error());
  return std::log(report->perplexity);
}

Result<double> divergence(const std::shared_ptr<const Model>& model, std::span<const std::int32_t> window,
                          const PolicySpec& spec, const TuneProgress& progress) {
  const auto report = compare(model, window, {&spec, 1}, {.decode = 0}, progress);
  if (!report) return tl::unexpected(report.error());
  return report->rows.back().kl_to_full;
}

Result<double> mask_distance(const std::shared_ptr<const Model>& model, std::span<const std::int32_t> window,
                             const PolicySpec& spec, const TuneProgress& progress) {
  const std::vector<std::int32_t> sequence(window.begin(), window.end());
  const auto report = analyse_masks(model, {&sequence, 1}, {&spec, 1}, KvType::f16, progress);
  if (!report) return tl::unexpected(report.error());
  return 1 - report->policies.front().all.cosine;
}

}  // namespace

std::size_t readings_of(TextCost cost) { return cost == TextCost::divergence ? 2 : 1; }

Result<double> text_cost(const std::shared_ptr<const Model>& model, const TuneWindows& windows, const PolicySpec& spec,
                         TextCost cost, const TuneProgress& progress) {
  const std::size_t tokens = windows.length * readings_of(cost);
  double sum = 0;
  for (std::size_t i = 0; i < windows.count; ++i) {
    const auto counted = [&](std::size_t done, std::size_t) {
      return !progress || progress(i * tokens + done, windows.count * tokens);
    };
    constexpr std::array kCosts = {log_loss, divergence, mask_distance};
    const auto of_window = kCosts[static_cast<std::size_t>(cost)](model, windows.window(i), spec, counted);
    if (!of_window) return of_window;
    sum += *of_window;
  }
  return sum / static_cast<double>(windows.count);
}

}  // namespace a2sf
