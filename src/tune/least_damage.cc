#include "tune/least_damage.h"

#include <algorithm>
#include <cmath>

namespace a2sf {
namespace {

constexpr int kCandidates = 200;  // budgets that are tried, in equal ratios

struct Candidate {
  double budget, damage;
};

// What two heads or budgets can differ by, however small a damage is.
constexpr double kNoDamage = 1e-12;

// Whether b lies on or above the line from a to c.
bool is_above(const Candidate& a, const Candidate& b, const Candidate& c) {
  return (b.damage - a.damage) * (c.budget - a.budget) >= (c.damage - a.damage) * (b.budget - a.budget);
}

// The lower convex hull, by ascending budgets: its damage falls by less and less per token.
std::vector<Candidate> hull_of(const DamageLadder& ladder, const std::vector<double>& damage, double least) {
  const double most = static_cast<double>(ladder.length);
  std::vector<Candidate> hull;
  for (int i = 0; i <= kCandidates; ++i) {
    const double budget = least * std::pow(most / least, static_cast<double>(i) / kCandidates);
    const Candidate next{budget, i == kCandidates ? 0 : damage_at(budget, ladder, damage)};
    while (hull.size() >= 2 && is_above(hull[hull.size() - 2], hull.back(), next)) hull.pop_back();
    hull.push_back(next);
  }
  return hull;
}

// More tokens for a head, and what each of them saves.
struct Growth {
  std::size_t head;
  double tokens, saved_per_token;
};

// Those of all heads, the most worthwhile first.
std::vector<Growth> steps_of(const std::vector<std::vector<Candidate>>& hulls) {
  std::vector<Growth> steps;
  for (std::size_t head = 0; head < hulls.size(); ++head) {
    for (std::size_t i = 0; i + 1 < hulls[head].size(); ++i) {
      const Candidate &from = hulls[head][i], &to = hulls[head][i + 1];
      const double tokens = to.budget - from.budget;
      steps.push_back({head, tokens, (from.damage - to.damage) / tokens});
    }
  }
  std::stable_sort(steps.begin(), steps.end(),
                   [](const Growth& a, const Growth& b) { return a.saved_per_token > b.saved_per_token; });
  return steps;
}

}  // namespace

double damage_at(double budget, const DamageLadder& ladder, const std::vector<double>& damage) {
  if (budget >= static_cast<double>(ladder.length)) return 0;
  const auto& rungs = ladder.budgets;
  const auto above = std::upper_bound(rungs.begin() + 1, rungs.end() - 1, static_cast<std::int64_t>(budget));
  const auto high = static_cast<std::size_t>(above - rungs.begin()), low = high - 1;
  const double x0 = std::log(static_cast<double>(rungs[low])), x1 = std::log(static_cast<double>(rungs[high]));
  const double y0 = std::log(std::max(damage[low], kNoDamage)), y1 = std::log(std::max(damage[high], kNoDamage));
  return std::exp(y0 + (std::log(budget) - x0) * (y1 - y0) / (x1 - x0));
}

std::vector<std::vector<double>> least_damage_budgets(const DamageLadder& ladder, double mean, double least) {
  std::vector<std::vector<Candidate>> hulls;
  for (const auto& layer : ladder.damage) {
    for (const auto& damage : layer) hulls.push_back(hull_of(ladder, damage, least));
  }
  std::vector<double> budgets(hulls.size(), least);
  double left = (mean - least) * static_cast<double>(hulls.size());
  for (const Growth& step : steps_of(hulls)) {
    const double tokens = std::min(step.tokens, std::max(left, 0.0));
    budgets[step.head] += tokens;
    left -= tokens;
  }
  std::vector<std::vector<double>> table;
  auto budget = budgets.begin();
  for (const auto& layer : ladder.damage) {
    table.emplace_back(budget, budget + std::ssize(layer));
    budget += std::ssize(layer);
  }
  return table;
}

}  // namespace a2sf
