#include "tune/lost_mass.h"

#include "eval/masks.h"

namespace a2sf {
namespace {

std::vector<std::vector<std::int32_t>> sequences_of(const TuneWindows& windows) {
  std::vector<std::vector<std::int32_t>> sequences;
  for (std::size_t i = 0; i < windows.count; ++i) {
    const auto window = windows.window(i);
    sequences.emplace_back(window.begin(), window.end());
  }
  return sequences;
}

}  // namespace

Result<DamageLadder> measure_lost_mass(const std::shared_ptr<const Model>& model, const TuneWindows& windows,
                                       const PolicySpec& spec, std::span<const std::int64_t> budgets,
                                       const TuneProgress& progress) {
  std::vector<PolicySpec> specs;
  for (const std::int64_t budget : budgets) specs.push_back(with_budget(spec, budget));
  const auto report = analyse_masks(model, sequences_of(windows), specs, KvType::f16, progress);
  if (!report) return tl::unexpected(report.error());
  DamageLadder ladder{{budgets.begin(), budgets.end()}, static_cast<std::int64_t>(windows.length), {}};
  const auto rows = static_cast<double>(windows.count * windows.length);
  for (std::size_t layer = 0; layer < report->policies.front().heads.size(); ++layer) {
    auto& of_layer = ladder.damage.emplace_back();
    for (std::size_t head = 0; head < report->policies.front().heads[layer].size(); ++head) {
      auto& of_head = of_layer.emplace_back();
      for (const PolicyMasks& rung : report->policies) {
        // Rows that had nothing to evict have lost nothing.
        const MaskMeans& means = rung.heads[layer][head];
        of_head.push_back(static_cast<double>(means.rows) / rows * (1 - means.mass));
      }
    }
  }
  return ladder;
}

}  // namespace a2sf
