#include <a2sf/hook.h>
#include <a2sf/policy.h>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <fstream>
#include <functional>
#include <limits>
#include <ostream>

#include "policy/retention.h"
#include "support/tiny_model.h"

namespace a2sf {
namespace {

using testing::HasSubstr;

HeadRule rule_of(const std::string& spec, std::int64_t sequence_tokens = 0) {
  return resolve(parse_policy(spec).value(), 0, 0, 0, sequence_tokens, 0).value();
}

TEST(PolicySpec, DefaultsAreThePolicyTable) {
  EXPECT_EQ(rule_of("local:budget=64").recent, 64);
  EXPECT_EQ(rule_of("streaming:budget=64").sink, 4);
  EXPECT_EQ(rule_of("streaming:budget=64").recent, 60);
  EXPECT_EQ(rule_of("streaming:budget=1").sink, 0);
  EXPECT_EQ(rule_of("h2o:budget=65").recent, 32);
  EXPECT_EQ(rule_of("h2o:budget=65").alpha, 1);
  EXPECT_EQ(rule_of("tova:budget=65").recent, 0);
  EXPECT_EQ(rule_of("tova:budget=65").alpha, 0);
  EXPECT_DOUBLE_EQ(rule_of("a2sf:budget=256").alpha, 1 - 1 / 384.0);
  EXPECT_EQ(rule_of("a2sf:budget=256").recent, 128);
}

TEST(PolicySpec, RatiosAreRoundedUpForBudgetsAndDownForRecent) {
  EXPECT_EQ(rule_of("a2sf:budget=0.2", 101).budget, 21);
  EXPECT_EQ(rule_of("a2sf:budget=20%", 100).budget, 20);
  EXPECT_EQ(rule_of("a2sf:budget=21:recent=0.5").recent, 10);
}

TEST(PolicySpec, ARatioNeedsALength) { EXPECT_FALSE(resolve(parse_policy("a2sf:budget=0.2").value(), 0, 0, 0, 0, 0)); }

TEST(PolicySpec, PrintsWhatItReads) {
  for (const std::string text :
       {"a2sf:alpha=0.9:budget=128:sink=4:recent=32:block=8:pin=2", "full", "h2o:budget=20%:block=prompt",
        "h2o:power=1.5:value-weight=on:budget=64:layers=2-29+31:sink=1", "tova:budget=all", "streaming:budget=8:sink=4",
        "h2o:alpha=auto:budget=64", "a2sf:memory=0.25:budget=64", "a2sf:threshold=0.001:budget=64",
        "a2sf:budget=64:cold=all:recall=8", "h2o:budget=9:cold=50:block=1",
        "tova:budget=9:cold=50:block=prompt:pin=2"}) {
    EXPECT_EQ(to_string(parse_policy(text).value()), text);
  }
}

TEST(PolicySpec, AThresholdIsOfScoresAndWhatAHookCallsSoItsOwn) {
  EXPECT_EQ(rule_of("h2o:threshold=0.25:budget=8").threshold, .25);
  EXPECT_EQ(parse_policy("a2sf:threshold=0").value(), parse_policy("a2sf").value());
  EXPECT_EQ(to_string(parse_policy("lazy:threshold=0.25").value()), "lazy:budget=1024:threshold=0.25");
  EXPECT_EQ(rule_of("lazy:threshold=0.25:budget=8").threshold, 0);
  for (const char* text : {"a2sf:threshold=1", "a2sf:threshold=-0.1", "a2sf:threshold=nan", "a2sf:threshold="})
    EXPECT_THAT(parse_policy(text).error().message, HasSubstr("a probability from 0 to below 1")) << text;
  EXPECT_THAT(resolve(parse_policy("a2sf:threshold=0.1:cold=all").value(), 0, 0, 0, 0, 0).error().message,
              HasSubstr("leave out threshold or cold"));
}

TEST(PolicySpec, AColdTierIsSearchedEverySixteenTokensUnlessABlockIsGiven) {
  EXPECT_EQ(parse_policy("a2sf:cold=all").value().block(), 16);
  EXPECT_EQ(parse_policy("a2sf:block=4:cold=all").value().block(), 4);
  EXPECT_EQ(parse_policy("a2sf:cold=0").value(), parse_policy("a2sf").value());
  for (const char* text : {"full:cold=all", "ideal:cold=all", "shared-budget:cold=all:recall=3"}) {
    const PolicySpec spec = parse_policy(text).value();
    EXPECT_FALSE(spec.has_cold_tier()) << text;
    EXPECT_EQ(spec.block(), 1) << text;
  }
}

TEST(PolicySpec, PrintsTheShortestRatioThatReadsBackTheSame) {
  EXPECT_EQ(to_string(parse_policy("a2sf:budget=0.07:recent=0.29").value()), "a2sf:budget=7%:recent=29%");
  EXPECT_EQ(to_string(parse_policy("a2sf:budget=0.57").value()), "a2sf:budget=57%");
  EXPECT_EQ(to_string(parse_policy("a2sf:budget=20.0%").value()), "a2sf:budget=20%");
  EXPECT_EQ(to_string(parse_policy("a2sf:budget=0.00001").value()), "a2sf:budget=0.001%");
  for (int i = 1; i <= 2000; ++i) {
    PolicySpec spec;
    spec.budget.budget = BudgetRatio{i / 2001.0};
    EXPECT_EQ(parse_policy(to_string(spec)).value(), spec) << to_string(spec);
  }
}

struct WrongPolicy {
  std::string spec, mention;
  friend std::ostream& operator<<(std::ostream& out, const WrongPolicy& wrong) { return out << wrong.spec; }
};

class BadSpec : public testing::TestWithParam<WrongPolicy> {};

TEST_P(BadSpec, IsOneLineThatNamesTheValue) {
  const auto spec = parse_policy(GetParam().spec);
  ASSERT_FALSE(spec);
  EXPECT_THAT(spec.error().message, HasSubstr(GetParam().mention));
  EXPECT_EQ(spec.error().message.find('\n'), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(
    Texts, BadSpec,
    testing::Values(WrongPolicy{"", "no policy"}, WrongPolicy{"best", "'best'"}, WrongPolicy{"a2sf:alpha=1.5", "'1.5'"},
                    WrongPolicy{"a2sf:alpha=nan", "'nan'"}, WrongPolicy{"a2sf:alpha=-0.1", "'-0.1'"},
                    WrongPolicy{"a2sf:memory=0", "'0'"}, WrongPolicy{"a2sf:memory=inf", "'inf'"},
                    WrongPolicy{"a2sf:budget=0", "'0'"}, WrongPolicy{"a2sf:budget=0.0", "'0.0'"},
                    WrongPolicy{"a2sf:budget=1.5", "'1.5'"}, WrongPolicy{"a2sf:budget=99999999999999999999", "999"},
                    WrongPolicy{"a2sf:budget=@/no/such/file", "/no/such/file"},
                    WrongPolicy{"a2sf:profile=/no/such/file", "/no/such/file"}, WrongPolicy{"a2sf:sink", "'sink'"},
                    WrongPolicy{"a2sf:colour=red", "'colour'"}, WrongPolicy{"a2sf:block=0", "'0'"},
                    WrongPolicy{"a2sf:recent=-3", "'-3'"}, WrongPolicy{"a2sf:budget=12x", "'12x'"},
                    WrongPolicy{"a2sf:power=2", "'2'"}, WrongPolicy{"a2sf:value-weight=yes", "'yes'"},
                    WrongPolicy{"a2sf:layers=", "''"}, WrongPolicy{"a2sf:layers=3-1", "'3-1'"},
                    WrongPolicy{"a2sf:layers=1+", "'1+'"}, WrongPolicy{"a2sf:layers=-2", "'-2'"},
                    WrongPolicy{"a2sf:cold=-1", "'-1'"}, WrongPolicy{"a2sf:cold=some", "'some'"},
                    WrongPolicy{"a2sf:recall=0", "'0'"}, WrongPolicy{"shared-budget:colour=red", "'colour'"}));

TEST(PolicySpec, CountsThatDoNotFitTheBudgetAreAnError) {
  const auto rule = resolve(parse_policy("a2sf:budget=8:sink=5:recent=4").value(), 0, 0, 0, 0, 0);
  ASSERT_FALSE(rule);
  EXPECT_THAT(rule.error().message, HasSubstr("budget 8"));
}

TEST(PolicySpec, ARatioThatIsNoneIsAnErrorOfOneLine) {
  for (const double ratio : {std::nan(""), HUGE_VAL, -HUGE_VAL, -.2, 1.5}) {
    PolicySpec budget, recent;
    budget.budget.budget = BudgetRatio{ratio};
    recent.keep.recent = {.size = ratio};
    for (const PolicySpec& spec : {budget, recent}) {
      const auto rule = resolve(spec, 0, 0, 0, 100, 0);
      ASSERT_FALSE(rule) << ratio;
      EXPECT_EQ(rule.error().kind, ErrorKind::bad_input);
      EXPECT_THAT(rule.error().message, HasSubstr(fmt::format("{}", ratio)));
      EXPECT_EQ(rule.error().message.find('\n'), std::string::npos);
    }
  }
}

TEST(PolicySpec, ANumberOutOfItsRangeIsAnErrorThatNamesIt) {
  constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max();
  const auto expect_error = [](const char* name, const std::function<void(PolicySpec&)>& spoil) {
    PolicySpec spec;
    spoil(spec);
    const auto rule = resolve(spec, 0, 0, 0, 0, 0);
    ASSERT_FALSE(rule) << name;
    EXPECT_EQ(rule.error().kind, ErrorKind::bad_input);
    EXPECT_THAT(rule.error().message, HasSubstr(name));
  };
  for (const std::int64_t count : {std::int64_t{-1}, kHuge, std::numeric_limits<std::int64_t>::min()}) {
    expect_error("budget", [&](PolicySpec& spec) { spec.budget.budget = BudgetCount{count}; });
    expect_error("budget", [&](PolicySpec& spec) { spec.budget.budget = BudgetTable{{{count}}}; });
    expect_error("sink", [&](PolicySpec& spec) { spec.keep.sink.tokens = count; });
    expect_error("recent", [&](PolicySpec& spec) { spec.keep.recent.size = count; });
    expect_error("block", [&](PolicySpec& spec) { spec.schedule = EvictEvery{count}; });
    expect_error("pin", [&](PolicySpec& spec) { spec.keep.pin = count; });
    expect_error("cold", [&](PolicySpec& spec) { spec.cold.tokens = count; });
    expect_error("recall", [&](PolicySpec& spec) { spec.cold.recall = count; });
  }
  expect_error("budget", [](PolicySpec& spec) { spec.budget.budget = BudgetCount{0}; });
  expect_error("block", [](PolicySpec& spec) { spec.schedule = EvictEvery{0}; });
  expect_error("power", [](PolicySpec& spec) { spec.score = Accumulate{.power = 2}; });
  expect_error("profile", [](PolicySpec& spec) { spec.budget.budget = BudgetShares{}; });
  expect_error("layers", [](PolicySpec& spec) { spec.budget.layers = {{3, 2}}; });
  expect_error("factory", [](PolicySpec& spec) { spec.score = Hooked{}; });
  for (const double alpha : {std::nan(""), -.1, 1.1, HUGE_VAL})
    expect_error("alpha", [&](PolicySpec& spec) { spec.score = Accumulate{.alpha = alpha}; });
}

TEST(PolicySpec, ARatioOfALengthThatNoSequenceHasIsAnError) {
  const PolicySpec spec = parse_policy("a2sf:budget=100%").value();
  for (const std::int64_t tokens :
       {std::numeric_limits<std::int64_t>::min(), std::int64_t{-1}, std::numeric_limits<std::int64_t>::max()})
    EXPECT_FALSE(resolve(spec, 0, 0, 0, tokens, 0)) << tokens;
}

TEST(PolicySpec, UnderARatioCountsAreClamped) {
  const HeadRule rule = rule_of("a2sf:budget=10%:sink=8:recent=9", 100);
  EXPECT_EQ(rule.sink, 8);
  EXPECT_EQ(rule.recent, 2);
}

TEST(PolicySpec, UnderARatioRecentGivesWayToPinsAndOnlyAPinBeyondTheBudgetIsAnError) {
  const HeadRule rule = rule_of("a2sf:budget=10%:recent=9:pin=6", 100);
  EXPECT_EQ(rule.budget, 10);
  EXPECT_EQ(rule.recent, 4);
  EXPECT_EQ(rule_of("h2o:budget=10%:recent=9:sink=8:pin=10", 100).recent, 0);
  const auto beyond = resolve(parse_policy("a2sf:budget=10%:pin=11").value(), 0, 0, 0, 100, 0);
  ASSERT_FALSE(beyond);
  EXPECT_THAT(beyond.error().message, HasSubstr("pin"));
}

TEST(PolicySpec, TheLongestWindowHasARingForItAndTheRowsBesideIt) {
  constexpr int kWindow = std::numeric_limits<int>::max();
  const auto resolved = resolve_all(parse_policy("full").value(), std::array{kWindow}, 1, 0);
  ASSERT_TRUE(resolved);
  EXPECT_EQ(resolved->slots.front().most, std::int64_t{kWindow} + kWindowRows);
}

TEST(PolicySpec, AWindowHidesNothingThatDoesNotFitTheBudget) {
  constexpr std::int64_t kWindow = 205;
  EXPECT_FALSE(resolve(parse_policy("h2o:budget=1024:pin=10111111").value(), 0, 0, 0, 0, kWindow));
  EXPECT_FALSE(resolve(parse_policy("a2sf:budget=1024:sink=1000:recent=100").value(), 0, 0, 0, 0, kWindow));
  const auto rule = resolve(parse_policy("a2sf:budget=1024:pin=300").value(), 0, 0, 0, 0, kWindow);
  ASSERT_TRUE(rule) << "pins leave with the window";
  EXPECT_EQ(rule->budget, kWindow);
}

TEST(PolicySpec, TheRestOfStreamingIsWhatItsSinksLeave) {
  EXPECT_EQ(rule_of("streaming:budget=64:sink=2").recent, 62);
  EXPECT_EQ(rule_of("streaming:budget=64:pin=10").recent, 54);
}

TEST(PolicySpec, OptionsForAllComeBeforeItsOwn) {
  const std::vector<PolicyOption> common = {{"budget", "64"}, {"alpha", "0.5"}, {"sink", "4"}};
  EXPECT_EQ(to_string(parse_policy("a2sf:alpha=0.9", common).value()), "a2sf:alpha=0.9:budget=64:sink=4");
  EXPECT_EQ(to_string(parse_policy("full", common).value()), "full");
  EXPECT_FALSE(parse_policy("full", std::vector<PolicyOption>{{"alpha", "2"}}));
}

TEST(PolicySpec, PowerAndItsMemory) {
  EXPECT_DOUBLE_EQ(rule_of("a2sf:budget=256:power=1.5").alpha, 1 - 1 / 512.0);
  EXPECT_EQ(rule_of("h2o:budget=256:power=1.5").alpha, 1);
  EXPECT_EQ(rule_of("h2o:budget=256:power=1.5").power, 1.5);
}

TEST(PolicySpec, MemoryIsInBudgets) {
  EXPECT_DOUBLE_EQ(rule_of("a2sf:budget=256:memory=0.5").alpha, 1 - 1 / 128.0);
  EXPECT_DOUBLE_EQ(rule_of("h2o:budget=256:power=1.5:memory=4").alpha, 1 - 1 / 1024.0);
  EXPECT_EQ(rule_of("a2sf:budget=2:memory=0.25").alpha, 0) << "a memory of less than a row";
  EXPECT_DOUBLE_EQ(rule_of("a2sf:budget=256:memory=4:alpha=auto").alpha, 1 - 1 / 384.0) << "the last one holds";
}

TEST(PolicySpec, ValueWeightsNeedASink) {
  const auto without = resolve(parse_policy("a2sf:budget=8:value-weight=on").value(), 0, 0, 0, 0, 0);
  ASSERT_FALSE(without);
  EXPECT_THAT(without.error().message, HasSubstr("sink"));
  EXPECT_TRUE(rule_of("a2sf:budget=8:value-weight=on:sink=1").value_weight);
}

TEST(PolicySpec, LayersThatAreNotNamedKeepEverything) {
  const PolicySpec spec = parse_policy("a2sf:budget=8:layers=1-2+4").value();
  for (const int layer : {0, 3, 5}) {
    const HeadRule rule = resolve(spec, layer, 0, 0, 0, 0).value();
    EXPECT_EQ(rule.mode, RetentionMode::all) << layer;
    EXPECT_EQ(rule.budget, kKeepAll) << layer;
  }
  for (const int layer : {1, 2, 4}) EXPECT_EQ(resolve(spec, layer, 0, 0, 0, 0).value().budget, 8) << layer;
  EXPECT_EQ(resolve(spec, 0, 0, 0, 0, 30).value().budget, 30) << "but for what a window leaves behind";
  EXPECT_TRUE(resolve_all(spec, std::vector<int>(5, 0), 1, 0));
  const auto shorter = resolve_all(spec, std::vector<int>(4, 0), 1, 0);
  ASSERT_FALSE(shorter);
  EXPECT_THAT(shorter.error().message, HasSubstr("layer 4"));
}

TEST(PolicySpec, AHookAndATablePrintTheirOwnNames) {
  struct Named : SharedBudget {
    std::string_view name() const override { return "mine"; }
  };
  PolicySpec spec = parse_policy("shared-budget:budget=8").value();
  EXPECT_EQ(to_string(spec), "shared-budget:budget=8");
  spec.name = "mine";
  spec.score = Hooked{std::make_shared<Named>(), {}};
  spec.budget.budget = BudgetTable{{{3, 4}}};
  EXPECT_EQ(to_string(spec), "mine:budget=@unnamed");
  spec.budget.budget = BudgetTable{{{3, 4}}, "table.json"};
  EXPECT_EQ(to_string(spec), "mine:budget=@table.json");
}

TEST(PolicySpec, ABudgetTableHasOneEntryPerHead) {
  const std::string path = temporary_path("budgets.json");
  std::ofstream(path) << R"({"budgets": [[16, 32], [64, 8]]})";
  const PolicySpec spec = parse_policy("a2sf:budget=@" + path).value();
  EXPECT_EQ(resolve(spec, 1, 0, 0, 0, 0).value().budget, 64);
  EXPECT_FALSE(resolve(spec, 2, 0, 0, 0, 0));
  std::ofstream(path) << R"({"budgets": [[16, "all"]]})";
  EXPECT_EQ(resolve(parse_policy("a2sf:budget=@" + path).value(), 0, 0, 1, 0, 0).value().mode, RetentionMode::all);
  std::ofstream(path) << R"({"budgets": [[16, "al"]]})";
  EXPECT_FALSE(parse_policy("a2sf:budget=@" + path));
  std::ofstream(path) << R"({"budgets": [[16, -1]]})";
  EXPECT_FALSE(parse_policy("a2sf:budget=@" + path));
}

}  // namespace
}  // namespace a2sf
