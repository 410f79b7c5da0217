// The other measures of damage, and the costs by which memories are chosen, beside what they are made of.
#include <a2sf/profile.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <random>

#include "eval/compare.h"
#include "eval/masks.h"
#include "support/tiny_model.h"
#include "tune/choose_policy.h"
#include "tune/head_divergence.h"
#include "tune/lost_mass.h"
#include "tune/tune.h"

namespace a2sf {
namespace {

constexpr std::size_t kLength = 96;

std::shared_ptr<const Model> measured_model() {
  const std::string path = write_tiny_model({}, temporary_path("measures.gguf"));
  auto model = Model::load(path, {.threads = 2, .isa = {}}).value();
  std::filesystem::remove(path);
  return model;
}

std::vector<std::int32_t> measured_text(std::size_t count = kLength) {
  std::mt19937 generator(11);
  std::vector<std::int32_t> tokens(count);
  for (auto& token : tokens) token = static_cast<std::int32_t>(generator() % 128);
  return tokens;
}

PolicySpec a2sf_spec(const std::string& options = "") { return parse_policy("a2sf" + options).value(); }

double divergence_of(const std::shared_ptr<const Model>& model, const PolicySpec& spec) {
  return compare(model, measured_text(), {&spec, 1}, {.decode = 0}).value().rows.back().kl_to_full;
}

TEST(HeadDivergence, IsTheKlWhereTheHeadAloneIsBoundedLessTheRounding) {
  const auto model = measured_model();
  const auto tokens = measured_text();
  const auto ladder =
      measure_head_divergence(model, {tokens, kLength, 1}, a2sf_spec(), std::vector<std::int64_t>{8, 95}, {}).value();
  double rounding = 1;
  for (const auto& layer : ladder.damage) {
    for (const auto& head : layer) EXPECT_GT(head[0], head[1]);
  }
  for (int head = 0; head < 4; ++head) {
    PolicySpec spec = a2sf_spec();
    BudgetTable table{{{kKeepAll, kKeepAll}, {kKeepAll, kKeepAll}}};
    table.tokens[static_cast<std::size_t>(head / 2)][static_cast<std::size_t>(head % 2)] = 95;
    spec.budget = {table};
    rounding = std::min(rounding, divergence_of(model, spec));
  }
  PolicySpec alone = a2sf_spec();
  alone.budget = {BudgetTable{{{kKeepAll, kKeepAll}, {8, kKeepAll}}}};
  EXPECT_NEAR(ladder.damage[1][0][0], divergence_of(model, alone) - rounding, 1e-9);
}

TEST(LostMass, IsTheMeanOverAllRows) {
  const auto model = measured_model();
  const auto tokens = measured_text();
  const auto ladder =
      measure_lost_mass(model, {tokens, kLength, 1}, a2sf_spec(), std::vector<std::int64_t>{8, 40}, {}).value();
  const PolicySpec spec = a2sf_spec(":budget=40");
  const auto masks = analyse_masks(model, {&tokens, 1}, {&spec, 1}, KvType::f16).value();
  const MaskMeans& head = masks.policies[0].heads[1][1];
  EXPECT_EQ(head.rows, kLength - 41) << "the others have nothing to lose";
  EXPECT_NEAR(ladder.damage[1][1][1], (1 - head.mass) * 55 / 96, 1e-9);
  EXPECT_GT(ladder.damage[1][1][0], ladder.damage[1][1][1]);
}

TEST(TextCost, IsWhatComparisonsAndMasksSay) {
  const auto model = measured_model();
  const auto tokens = measured_text();
  const TuneWindows windows{tokens, kLength, 1};
  const PolicySpec spec = a2sf_spec(":budget=16");
  EXPECT_NEAR(text_cost(model, windows, spec, TextCost::divergence, {}).value(), divergence_of(model, spec), 1e-12);
  const auto row = compare(model, tokens, {&spec, 1}, {.decode = 0}).value().rows.back();
  EXPECT_NEAR(text_cost(model, windows, spec, TextCost::log_loss, {}).value(), std::log(row.perplexity), 1e-4);
  const auto masks = analyse_masks(model, {&tokens, 1}, {&spec, 1}, KvType::f16).value();
  EXPECT_EQ(text_cost(model, windows, spec, TextCost::mask_distance, {}).value(), 1 - masks.policies[0].all.cosine);
}

TEST(Tune, EveryMeasureSharesOutTheSameMean) {
  const auto tokens = measured_text(300);
  for (const auto measure : {DamageMeasure::output, DamageMeasure::divergence, DamageMeasure::lost_mass}) {
    const auto budgets =
        tune_budgets(measured_model(), tokens,
                     {.policy = a2sf_spec(), .means = {16}, .longest_window = 128, .windows = 1, .measure = measure});
    ASSERT_TRUE(budgets) << budgets.error().message;
    const ShareTable& table = budgets->tables.front();
    double sum = 0;
    for (const auto& layer : table.shares) {
      for (const double share : layer) sum += share;
    }
    EXPECT_NEAR(sum / 4, 1, 1e-3);
    EXPECT_TRUE(table.memories.empty());
  }
}

TEST(ChoosePolicy, TakesTheOneThatIsNearestToTheFullCache) {
  const auto model = measured_model();
  const auto tokens = measured_text(128);
  const TuneOptions options{.policy = {}, .means = {16}, .longest_window = 128, .windows = 1};
  // Without a recent window a long memory freezes the cache on the first tokens.
  const std::vector<PolicySpec> policies = {a2sf_spec(":alpha=1:recent=0"), a2sf_spec(), a2sf_spec(":power=1.5")};
  const auto chosen = choose_policy(model, tokens, policies, options).value();
  std::vector<double> costs;
  for (const PolicySpec& policy : policies) {
    TuneOptions own = options;
    own.policy = policy;
    PolicySpec spec = with_budget(policy, 16);
    const Profile profile{.tables = tune_budgets(model, tokens, own).value().tables};
    ASSERT_TRUE(share_by(spec, std::make_shared<const Profile>(profile)));
    costs.push_back(text_cost(model, {tokens, 128, 1}, spec, TextCost::divergence, {}).value());
  }
  EXPECT_EQ(chosen.policy, static_cast<std::size_t>(std::min_element(costs.begin(), costs.end()) - costs.begin()));
  EXPECT_EQ(chosen.budgets.tables.size(), 1U);
}

TEST(Tune, MemoriesMakeTheirCostNoLarger) {
  const auto model = measured_model();
  const auto tokens = measured_text(128);
  TuneOptions options{.policy = a2sf_spec(), .means = {16}, .longest_window = 128, .windows = 1};
  options.memories = {MemoryGroups::per_layer, 12};
  std::size_t last = 0, total = 0;
  const auto budgets = tune_budgets(model, tokens, options, [&](std::size_t done, std::size_t all) {
    EXPECT_GE(done, last);
    EXPECT_LE(done, all);
    last = done;
    total = all;
    return true;
  });
  ASSERT_TRUE(budgets) << budgets.error().message;
  const ShareTable& tuned = budgets->tables.front();
  const auto cost = [&](const ShareTable& table) {
    PolicySpec spec = a2sf_spec(":budget=16");
    EXPECT_TRUE(share_by(spec, std::make_shared<const Profile>(Profile{.tables = {table}})));
    return text_cost(model, {tokens, 128, 1}, spec, TextCost::divergence, {}).value();
  };
  ShareTable plain = tuned;
  plain.memories.clear();
  EXPECT_LE(cost(tuned), cost(plain));
  EXPECT_EQ(tuned.memories.size(), 2U);
  EXPECT_EQ(tuned.memories[0][0], tuned.memories[0][1]) << "one per layer";
}

}  // namespace
}  // namespace a2sf
