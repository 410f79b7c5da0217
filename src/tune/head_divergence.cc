#include "tune/head_divergence.h"

#include <algorithm>

#include "eval/compare.h"

namespace a2sf {
namespace {

// Heads whose rungs are compared together: each sequence holds nearly a full cache, and all of them share one reading
// of the full cache.
constexpr std::size_t kTogether = 2;

struct Head {
  std::size_t layer, kv_head;
};

std::vector<Head> heads_of(const Model& model) {
  std::vector<Head> heads;
  for (int layer = 0; layer < model.info().layers; ++layer) {
    for (int kv_head = 0; kv_head < model.info().kv_heads; ++kv_head)
      heads.push_back({static_cast<std::size_t>(layer), static_cast<std::size_t>(kv_head)});
  }
  return heads;
}

PolicySpec bounded_in(const Head& head, const Model& model, PolicySpec spec, std::int64_t budget) {
  const auto layers = static_cast<std::size_t>(model.info().layers);
  const auto kv_heads = static_cast<std::size_t>(model.info().kv_heads);
  BudgetTable table{std::vector<std::vector<std::int64_t>>(layers, std::vector<std::int64_t>(kv_heads, kKeepAll))};
  table.tokens[head.layer][head.kv_head] = budget;
  spec.budget = {std::move(table)};
  return spec;
}

// Each of the heads alone at each rung, beside the full cache.
Status add_divergences(const std::shared_ptr<const Model>& model, std::span<const std::int32_t> window,
                       const PolicySpec& spec, std::span<const Head> heads, const TuneProgress& progress,
                       DamageLadder& ladder) {
  std::vector<PolicySpec> specs;
  for (const Head& head : heads) {
    for (const std::int64_t budget : ladder.budgets) specs.push_back(bounded_in(head, *model, spec, budget));
  }
  const auto report = compare(model, window, specs, {.decode = 0}, progress);
  if (!report) return tl::unexpected(report.error());
  auto row = report->rows.begin() + 1;  // the first is the full cache
  for (const Head& head : heads) {
    for (double& damage : ladder.damage[head.layer][head.kv_head]) damage += (row++)->kl_to_full;
  }
  return {};
}

template <class Change>
void for_each_damage(DamageTable& table, const Change& change) {
  for (auto& layer : table) {
    for (auto& head : layer) {
      for (double& damage : head) change(damage);
    }
  }
}

void divide_by(double count, DamageTable& table) {
  for_each_damage(table, [&](double& damage) { damage /= count; });
}

void take_off_rounding(DamageTable& table) {
  double least = table.front().front().front();
  for_each_damage(table, [&](const double& damage) { least = std::min(least, damage); });
  for_each_damage(table, [&](double& damage) { damage -= least; });
}

}  // namespace

std::size_t head_divergence_readings(const Model& model, std::size_t budgets) {
  const std::size_t heads = heads_of(model).size();
  return heads * budgets + (heads + kTogether - 1) / kTogether;
}

Result<DamageLadder> measure_head_divergence(const std::shared_ptr<const Model>& model, const TuneWindows& windows,
                                             const PolicySpec& spec, std::span<const std::int64_t> budgets,
                                             const TuneProgress& progress) {
  const auto heads = heads_of(*model);
  DamageLadder ladder{{budgets.begin(), budgets.end()}, static_cast<std::int64_t>(windows.length), {}};
  ladder.damage.assign(
      static_cast<std::size_t>(model->info().layers),
      std::vector(static_cast<std::size_t>(model->info().kv_heads), std::vector<double>(budgets.size())));
  const std::size_t total = windows.count * windows.length * head_divergence_readings(*model, budgets.size());
  std::size_t done = 0;
  for (std::size_t i = 0; i < windows.count; ++i) {
    for (std::size_t begin = 0; begin < heads.size(); begin += kTogether) {
      const auto part = std::span(heads).subspan(begin, std::min(kTogether, heads.size() - begin));
      std::size_t read = 0;
      const auto count = [&](std::size_t fed, std::size_t of_part) {
        read = of_part;
        return !progress || progress(done + fed, total);
      };
      if (auto added = add_divergences(model, windows.window(i), spec, part, count, ladder); !added)
        return tl::unexpected(added.error());
      done += read;
    }
  }
  divide_by(static_cast<double>(windows.count), ladder.damage);
  take_off_rounding(ladder.damage);
  return ladder;
}

}  // namespace a2sf
