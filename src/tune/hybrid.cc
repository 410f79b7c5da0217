#include "tune/hybrid.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "policy/budget.h"
#include "tune/least_damage.h"

namespace a2sf {
namespace {

struct LocalLoss {
  double loss;
  std::size_t layer, kv_head;
};

// Of all heads, the largest first.
std::vector<LocalLoss> local_losses(const DamageLadder& score, const DamageLadder& local, double budget) {
  std::vector<LocalLoss> losses;
  for (std::size_t layer = 0; layer < score.damage.size(); ++layer) {
    for (std::size_t head = 0; head < score.damage[layer].size(); ++head) {
      const double loss =
          damage_at(budget, local, local.damage[layer][head]) - damage_at(budget, score, score.damage[layer][head]);
      losses.push_back({loss, layer, head});
    }
  }
  std::stable_sort(losses.begin(), losses.end(),
                   [](const LocalLoss& a, const LocalLoss& b) { return a.loss > b.loss; });
  return losses;
}

double damage_of_layer(const DamageLadder& ladder, std::size_t layer, std::size_t rung) {
  double sum = 0;
  for (const auto& head : ladder.damage[layer]) sum += head[rung];
  return sum;
}

}  // namespace

PolicySpec local_policy(PolicySpec spec) {
  spec.keep.sink = {.tokens = std::max(spec.keep.sink.tokens, kLocalSinks), .yields = true};
  spec.keep.recent = {.size = 1.0, .yields = true};
  return spec;
}

std::vector<std::vector<double>> choose_local_heads(const DamageLadder& score, const DamageLadder& local, double budget,
                                                    double global_share) {
  const auto losses = local_losses(score, local, budget);
  std::vector<std::vector<double>> is_local;
  for (const auto& layer : score.damage) is_local.emplace_back(layer.size(), 0);
  const auto global = static_cast<std::size_t>(std::llround(global_share * static_cast<double>(losses.size())));
  for (std::size_t i = global; i < losses.size(); ++i) is_local[losses[i].layer][losses[i].kv_head] = 1;
  return is_local;
}

DamageLadder hybrid_ladder(const DamageLadder& score, const DamageLadder& local,
                           const std::vector<std::vector<double>>& is_local) {
  DamageLadder ladder = score;
  for (std::size_t layer = 0; layer < is_local.size(); ++layer) {
    for (std::size_t head = 0; head < is_local[layer].size(); ++head) {
      if (is_local[layer][head] == 1) ladder.damage[layer][head] = local.damage[layer][head];
    }
  }
  return ladder;
}

std::vector<LayerRange> bound_all_but_worst(const DamageLadder& ladder, std::size_t rung, std::size_t count) {
  std::vector<std::size_t> layers(ladder.damage.size());
  std::iota(layers.begin(), layers.end(), 0);
  std::stable_sort(layers.begin(), layers.end(), [&](std::size_t a, std::size_t b) {
    return damage_of_layer(ladder, a, rung) > damage_of_layer(ladder, b, rung);
  });
  layers.erase(layers.begin(), layers.begin() + static_cast<std::ptrdiff_t>(count));
  std::sort(layers.begin(), layers.end());
  std::vector<LayerRange> ranges;
  for (const std::size_t each : layers) {
    const int layer = static_cast<int>(each);
    if (ranges.empty() || ranges.back().last + 1 != layer) ranges.push_back({layer, layer});
    ranges.back().last = layer;
  }
  return ranges;
}

DamageLadder of_layers(const DamageLadder& ladder, const std::vector<LayerRange>& bounded) {
  DamageLadder part{ladder.budgets, ladder.length, {}};
  for (std::size_t layer = 0; layer < ladder.damage.size(); ++layer) {
    if (includes(bounded, static_cast<int>(layer))) part.damage.push_back(ladder.damage[layer]);
  }
  return part;
}

std::vector<std::vector<double>> for_all_layers(const std::vector<std::vector<double>>& table,
                                                const std::vector<LayerRange>& bounded, std::size_t layers,
                                                double standard) {
  std::vector<std::vector<double>> all;
  auto row = table.begin();
  for (std::size_t layer = 0; layer < layers; ++layer) {
    const bool is_bounded = includes(bounded, static_cast<int>(layer));
    all.push_back(is_bounded ? *row++ : std::vector<double>(table.front().size(), standard));
  }
  return all;
}

}  // namespace a2sf
