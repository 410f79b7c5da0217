// Budgets of least damage, beside sums worked out by hand and a search over all of them.
#include "tune/least_damage.h"

#include <gtest/gtest.h>

#include <cmath>

namespace a2sf {
namespace {

// Damage c / b^exponent of each head of one layer, at rungs of powers of two.
DamageLadder ladder_of(const std::vector<double>& factors, double exponent = 1) {
  DamageLadder ladder{{16, 32, 64, 128, 256, 512}, 1024, {{}}};
  for (const double factor : factors) {
    auto& damage = ladder.damage[0].emplace_back();
    for (const std::int64_t budget : ladder.budgets)
      damage.push_back(factor / std::pow(static_cast<double>(budget), exponent));
  }
  return ladder;
}

double mean_of(const std::vector<std::vector<double>>& budgets) {
  double sum = 0, count = 0;
  for (const auto& layer : budgets) {
    for (const double budget : layer) sum += budget, ++count;
  }
  return sum / count;
}

// Of c / b at a given sum of b, the least total has b in proportion to the square root of c.
TEST(LeastDamage, SharesInProportionToTheRootOfDamageThatFallsAsOneOverTheBudget) {
  const auto budgets = least_damage_budgets(ladder_of({1, 4, 9}), 100, 4);
  EXPECT_NEAR(budgets[0][1] / budgets[0][0], 2, 0.1);
  EXPECT_NEAR(budgets[0][2] / budgets[0][0], 3, 0.15);
}

TEST(LeastDamage, SpendsWhatThereIs) {
  for (const double mean : {4.0, 8.0, 50.0, 300.0, 1000.0})
    EXPECT_NEAR(mean_of(least_damage_budgets(ladder_of({1, 4, 9, 0.01}, 1.5), mean, 4)), mean, 1e-6);
  EXPECT_NEAR(mean_of(least_damage_budgets(ladder_of({1, 4}), 5000, 4)), 1024, 1e-6) << "the length of the window";
}

TEST(LeastDamage, AHeadThatLosesNothingGetsTheLeast) {
  DamageLadder ladder = ladder_of({1, 1});
  ladder.damage[0][0].assign(ladder.budgets.size(), 0);
  const auto budgets = least_damage_budgets(ladder, 100, 5);
  EXPECT_DOUBLE_EQ(budgets[0][0], 5);
  EXPECT_NEAR(budgets[0][1], 195, 1e-6);
}

// As in a layer with a sliding window of 64 tokens.
TEST(LeastDamage, AHeadGetsNoMoreThanTheBudgetFromWhichItLosesNothing) {
  DamageLadder ladder = ladder_of({1, 1});
  for (std::size_t rung = 2; rung < ladder.budgets.size(); ++rung) ladder.damage[0][0][rung] = 0;
  EXPECT_LE(least_damage_budgets(ladder, 400, 4)[0][0], 66);
}

// Damage that falls late only: half of the budget for each would be worse than all of it for one.
TEST(LeastDamage, OneHeadGetsWhatIsWorthNothingToTwo) {
  DamageLadder ladder = ladder_of({1, 1});
  for (auto& damage : ladder.damage[0]) damage = {1, 1, 1, 1, 1, 1e-6};
  const auto budgets = least_damage_budgets(ladder, 200, 4);
  EXPECT_GT(std::max(budgets[0][0], budgets[0][1]), 290);
}

TEST(LeastDamage, NoBudgetBeatsItAtTheSameMean) {
  const DamageLadder ladder = ladder_of({3, 0.5, 20, 1}, 0.8);
  const auto damage = [&](const std::vector<double>& budgets) {
    double sum = 0;
    for (std::size_t h = 0; h < budgets.size(); ++h) sum += ladder.damage[0][h][0] * std::pow(16 / budgets[h], 0.8);
    return sum;
  };
  const auto best = least_damage_budgets(ladder, 64, 4)[0];
  for (std::size_t from = 0; from < 4; ++from) {
    for (std::size_t to = 0; to < 4; ++to) {
      auto moved = best;
      moved[from] -= 3;
      moved[to] += 3;
      EXPECT_GT(damage(moved), damage(best) * (1 - 1e-3)) << from << " to " << to;
    }
  }
}

}  // namespace
}  // namespace a2sf
