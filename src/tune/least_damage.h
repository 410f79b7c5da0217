// Budgets of least total damage at a given mean.
#pragma once

#include "tune/damage.h"

namespace a2sf {

// The damage of one head at any budget, interpolated linearly between the logarithms of the rungs; a budget of the
// window's length costs nothing.
double damage_at(double budget, const DamageLadder& ladder, const std::vector<double>& damage);

// [layer][kv head]: budgets b of this mean whose damages D(b) have about the least sum. Tokens go one after the other
// to the head that saves most by them, on the lower convex hull of its D (the marginal utility of LU-KV, arXiv
// 2602.08585), after `least` for every head. The mean is at least that; what is beyond the window's length for all
// heads is not spent.
std::vector<std::vector<double>> least_damage_budgets(const DamageLadder& ladder, double mean, double least);

}  // namespace a2sf
