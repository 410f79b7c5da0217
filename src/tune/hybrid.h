// Which heads and layers need more than a window of a text's newest tokens, or all of it: chosen by their damage.
#pragma once

#include "tune/damage.h"

namespace a2sf {

// The policy by which local heads go (ShareTable::local).
PolicySpec local_policy(PolicySpec spec);

// [layer][kv head]: 1 where a head is local. `global_share` of all heads are not, to the nearest whole number: those
// that lose most by it, in damage under the local policy less that under the score at a budget that is the same for
// all (`local` and `score` have the same rungs). DuoAttention (arXiv 2410.10819) splits heads alike, by gates that
// are trained on synthetic text.
std::vector<std::vector<double>> choose_local_heads(const DamageLadder& score, const DamageLadder& local, double budget,
                                                    double global_share);
// The damage of each head by its own kind.
DamageLadder hybrid_ladder(const DamageLadder& score, const DamageLadder& local,
                           const std::vector<std::vector<double>>& is_local);

// The layers that are bounded where the `count` of most damage at a rung keep everything. There are more layers than
// `count`, which is above 0.
std::vector<LayerRange> bound_all_but_worst(const DamageLadder& ladder, std::size_t rung, std::size_t count);
// The damages of these layers alone (empty: all).
DamageLadder of_layers(const DamageLadder& ladder, const std::vector<LayerRange>& bounded);
// The other way: a row for each of the model's layers, of `table` where it is bounded, of `standard` elsewhere.
std::vector<std::vector<double>> for_all_layers(const std::vector<std::vector<double>>& table,
                                                const std::vector<LayerRange>& bounded, std::size_t layers,
                                                double standard);

}  // namespace a2sf
