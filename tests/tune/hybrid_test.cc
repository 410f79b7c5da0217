// Which heads are local and which layers keep everything: on damages that were made up, and on a tiny model.
#include "tune/hybrid.h"

#include <a2sf/profile.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <numeric>

#include "policy/budget.h"
#include "policy/retention.h"
#include "support/tiny_model.h"
#include "tune/tune.h"

namespace a2sf {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Table = std::vector<std::vector<double>>;

// Two layers of two heads at two rungs.
DamageLadder ladder_of(DamageTable damage) { return {{16, 64}, 256, std::move(damage)}; }

const DamageLadder kScore = ladder_of({{{8, 4}, {2, 1}}, {{6, 3}, {9, 8}}});
const DamageLadder kLocal = ladder_of({{{9, 8}, {3, 1}}, {{6, 2}, {20, 9}}});

double total(const Table& table) {
  double sum = 0;
  for (const auto& row : table) sum = std::accumulate(row.begin(), row.end(), sum);
  return sum;
}

std::shared_ptr<const Model> hybrid_model() {
  const std::string path = write_tiny_model({}, temporary_path("hybrid.gguf"));
  auto model = Model::load(path, {.threads = 2, .isa = {}}).value();
  std::filesystem::remove(path);
  return model;
}

std::vector<std::int32_t> tokens(int count) {
  std::vector<std::int32_t> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back((i * i + i / 7) % 128);
  return tokens;
}

TuneOptions small_options() {
  return {.policy = parse_policy("a2sf").value(), .means = {32}, .longest_window = 128, .windows = 1};
}

TEST(Hybrid, HeadsThatLoseMostByANewestWindowStayGlobal) {
  EXPECT_EQ(choose_local_heads(kScore, kLocal, 64, 0.25), (Table{{0, 1}, {1, 1}}));
  EXPECT_EQ(choose_local_heads(kScore, kLocal, 64, 0.5), (Table{{0, 1}, {1, 0}}));
  EXPECT_EQ(choose_local_heads(kScore, kLocal, 16, 0.25), (Table{{1, 1}, {1, 0}})) << "at another budget";
}

TEST(Hybrid, AShareIsRoundedToWholeHeads) {
  EXPECT_EQ(total(choose_local_heads(kScore, kLocal, 64, 0)), 4);
  EXPECT_EQ(total(choose_local_heads(kScore, kLocal, 64, 0.4)), 2);
  EXPECT_EQ(total(choose_local_heads(kScore, kLocal, 64, 0.9)), 0);
}

TEST(Hybrid, EachHeadHasTheDamageOfItsKind) {
  EXPECT_EQ(hybrid_ladder(kScore, kLocal, {{0, 1}, {1, 0}}).damage, (DamageTable{{{8, 4}, {3, 1}}, {{6, 2}, {9, 8}}}));
}

TEST(Hybrid, MeasuresLocalHeadsByTheRuleThatAProfileGivesThem) {
  const PolicySpec spec = parse_policy("a2sf").value();
  Profile profile{.tables = {{.shares = {{1}}, .local = {{1}}}}};
  for (const std::int64_t budget : {1, 3, 5, 64}) {
    PolicySpec shared = parse_policy("a2sf").value();
    shared.budget = {BudgetCount{budget}};
    ASSERT_TRUE(share_by(shared, std::make_shared<const Profile>(profile)));
    const HeadRule by_profile = resolve(shared, 0, 0, 0, 0, 0).value();
    const HeadRule measured = resolve(with_budget(local_policy(spec), budget), 0, 0, 0, 0, 0).value();
    EXPECT_EQ(by_profile.sink, measured.sink) << budget;
    EXPECT_EQ(by_profile.recent, measured.recent) << budget;
    EXPECT_EQ(must_stay(by_profile), budget);
  }
}

TEST(LongTerm, LayersOfMostDamageAreLeftOut) {
  const DamageLadder ladder = ladder_of({{{1, 9}}, {{5, 1}}, {{4, 1}}, {{2, 8}}, {{3, 7}}});
  EXPECT_THAT(bound_all_but_worst(ladder, 0, 1), ElementsAre(LayerRange{0, 0}, LayerRange{2, 4}));
  EXPECT_THAT(bound_all_but_worst(ladder, 0, 3), ElementsAre(LayerRange{0, 0}, LayerRange{3, 3}));
  EXPECT_THAT(bound_all_but_worst(ladder, 1, 1), ElementsAre(LayerRange{1, 4}));
  const std::vector<LayerRange> bounded = {{0, 0}, {3, 3}};
  EXPECT_EQ(of_layers(ladder, bounded).damage, (DamageTable{{{1, 9}}, {{2, 8}}}));
  EXPECT_EQ(for_all_layers({{7}, {9}}, bounded, 5, 1), (Table{{7}, {1}, {1}, {9}, {1}}));
}

TEST(Tune, HybridHasTheShareOfGlobalHeadsAndTheMean) {
  TuneOptions options = small_options();
  options.global_share = 0.5;
  std::size_t last = 0, all = 0;
  const auto budgets = tune_budgets(hybrid_model(), tokens(300), options, [&](std::size_t done, std::size_t of) {
    EXPECT_GE(done, last);
    last = done, all = of;
    return true;
  });
  ASSERT_TRUE(budgets) << budgets.error().message;
  EXPECT_EQ(last, all);
  const ShareTable& table = budgets->tables.front();
  EXPECT_EQ(total(table.local), 2);
  EXPECT_NEAR(total(table.shares), 4, 1e-3);
  EXPECT_TRUE(budgets->bounded.empty());
  EXPECT_TRUE(validate({.tables = budgets->tables}));
}

TEST(Tune, LongTermLayersTakeNoPartInTheMean) {
  TuneOptions options = small_options();
  options.long_term = 1;
  options.global_share = 0.5;
  const auto budgets = tune_budgets(hybrid_model(), tokens(300), options).value();
  ASSERT_EQ(budgets.bounded.size(), 1U);
  const auto bounded = static_cast<std::size_t>(budgets.bounded[0].first);
  EXPECT_EQ(budgets.bounded[0].last, budgets.bounded[0].first);
  EXPECT_EQ(budgets.tables[0].shares[1 - bounded], (std::vector<double>{1, 1}));
  EXPECT_NEAR(budgets.tables[0].shares[bounded][0] + budgets.tables[0].shares[bounded][1], 2, 1e-3);
  EXPECT_EQ(total(budgets.tables[0].local), 1);
}

TEST(Tune, SomeLayerMustBeBounded) {
  TuneOptions options = small_options();
  options.long_term = 2;
  EXPECT_THAT(tune_budgets(hybrid_model(), tokens(300), options).error().message,
              HasSubstr("2 layers that keep everything: the model has 2, and at least one must be bounded; 1 are"));
}

}  // namespace
}  // namespace a2sf
