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
  return resolve(parse_policy(spec).value(), 0, 0, sequence_tokens, 0).value();
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

TEST(PolicySpec, ARatioNeedsALength) { EXPECT_FALSE(resolve(parse_policy("a2sf:budget=0.2").value(), 0, 0, 0, 0)); }

TEST(PolicySpec, PrintsWhatItReads) {
  for (const std::string text :
       {"a2sf:alpha=0.9:budget=128:sink=4:recent=32:block=8:pin=2", "full", "h2o:budget=20%:block=prompt"}) {
    EXPECT_EQ(to_string(parse_policy(text).value()), text);
  }
}

TEST(PolicySpec, PrintsTheShortestRatioThatReadsBackTheSame) {
  EXPECT_EQ(to_string(parse_policy("a2sf:budget=0.07:recent=0.29").value()), "a2sf:budget=7%:recent=29%");
  EXPECT_EQ(to_string(parse_policy("a2sf:budget=0.57").value()), "a2sf:budget=57%");
  EXPECT_EQ(to_string(parse_policy("a2sf:budget=20.0%").value()), "a2sf:budget=20%");
  EXPECT_EQ(to_string(parse_policy("a2sf:budget=0.00001").value()), "a2sf:budget=0.001%");
  for (int i = 1; i <= 2000; ++i) {
    PolicySpec spec;
    spec.budget.ratio = i / 2001.0;
    EXPECT_EQ(parse_policy(to_string(spec)).value().budget.ratio, spec.budget.ratio) << to_string(spec);
  }
}

struct WrongText {
  std::string spec, mention;
  friend std::ostream& operator<<(std::ostream& out, const WrongText& wrong) { return out << wrong.spec; }
};

class BadSpec : public testing::TestWithParam<WrongText> {};

TEST_P(BadSpec, IsOneLineThatNamesTheValue) {
  const auto spec = parse_policy(GetParam().spec);
  ASSERT_FALSE(spec);
  EXPECT_THAT(spec.error().message, HasSubstr(GetParam().mention));
  EXPECT_EQ(spec.error().message.find('\n'), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Texts, BadSpec,
                         testing::Values(WrongText{"", "no policy"}, WrongText{"best", "'best'"},
                                         WrongText{"a2sf:alpha=1.5", "'1.5'"}, WrongText{"a2sf:alpha=nan", "'nan'"},
                                         WrongText{"a2sf:alpha=-0.1", "'-0.1'"}, WrongText{"a2sf:budget=0", "'0'"},
                                         WrongText{"a2sf:budget=0.0", "'0.0'"}, WrongText{"a2sf:budget=1.5", "'1.5'"},
                                         WrongText{"a2sf:budget=99999999999999999999", "999"},
                                         WrongText{"a2sf:budget=@/no/such/file", "/no/such/file"},
                                         WrongText{"a2sf:profile=/no/such/file", "/no/such/file"},
                                         WrongText{"a2sf:sink", "'sink'"}, WrongText{"a2sf:colour=red", "'colour'"},
                                         WrongText{"a2sf:block=0", "'0'"}, WrongText{"a2sf:recent=-3", "'-3'"},
                                         WrongText{"a2sf:budget=12x", "'12x'"}));

TEST(PolicySpec, CountsThatDoNotFitTheBudgetAreAnError) {
  const auto rule = resolve(parse_policy("a2sf:budget=8:sink=5:recent=4").value(), 0, 0, 0, 0);
  ASSERT_FALSE(rule);
  EXPECT_THAT(rule.error().message, HasSubstr("budget 8"));
}

TEST(PolicySpec, ARatioThatIsNoneIsAnErrorOfOneLine) {
  for (const double ratio : {std::nan(""), HUGE_VAL, -HUGE_VAL, -.2, 1.5}) {
    PolicySpec budget, recent;
    budget.budget.ratio = ratio;
    recent.recent = RecentWindow{0, ratio};
    for (const PolicySpec& spec : {budget, recent}) {
      const auto rule = resolve(spec, 0, 0, 100, 0);
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
    const auto rule = resolve(spec, 0, 0, 0, 0);
    ASSERT_FALSE(rule) << name;
    EXPECT_EQ(rule.error().kind, ErrorKind::bad_input);
    EXPECT_THAT(rule.error().message, HasSubstr(name));
  };
  for (const std::int64_t count : {std::int64_t{-1}, kHuge, std::numeric_limits<std::int64_t>::min()}) {
    expect_error("budget", [&](PolicySpec& spec) { spec.budget.count = count; });
    expect_error("budget", [&](PolicySpec& spec) { spec.budget.table = {{count}}; });
    expect_error("sink", [&](PolicySpec& spec) { spec.sink = count; });
    expect_error("recent", [&](PolicySpec& spec) { spec.recent = RecentWindow{count, 0}; });
    expect_error("block", [&](PolicySpec& spec) { spec.block = count; });
    expect_error("pin", [&](PolicySpec& spec) { spec.pin = count; });
  }
  expect_error("budget", [](PolicySpec& spec) { spec.budget.count = 0; });
  expect_error("block", [](PolicySpec& spec) { spec.block = 0; });
  for (const double alpha : {std::nan(""), -.1, 1.1, HUGE_VAL})
    expect_error("alpha", [&](PolicySpec& spec) { spec.alpha = alpha; });
}

TEST(PolicySpec, ARatioOfALengthThatNoSequenceHasIsAnError) {
  const PolicySpec spec = parse_policy("a2sf:budget=100%").value();
  for (const std::int64_t tokens :
       {std::numeric_limits<std::int64_t>::min(), std::int64_t{-1}, std::numeric_limits<std::int64_t>::max()})
    EXPECT_FALSE(resolve(spec, 0, 0, tokens, 0)) << tokens;
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
  const auto beyond = resolve(parse_policy("a2sf:budget=10%:pin=11").value(), 0, 0, 100, 0);
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
  EXPECT_FALSE(resolve(parse_policy("h2o:budget=1024:pin=10111111").value(), 0, 0, 0, kWindow));
  EXPECT_FALSE(resolve(parse_policy("a2sf:budget=1024:sink=1000:recent=100").value(), 0, 0, 0, kWindow));
  const auto rule = resolve(parse_policy("a2sf:budget=1024:pin=300").value(), 0, 0, 0, kWindow);
  ASSERT_TRUE(rule) << "pins leave with the window";
  EXPECT_EQ(rule->budget, kWindow);
}

TEST(PolicySpec, AHookAndATablePrintTheirOwnNames) {
  struct Named : SharedBudget {
    std::string_view name() const override { return "mine"; }
  };
  PolicySpec spec = parse_policy("shared-budget:budget=8").value();
  EXPECT_EQ(to_string(spec), "shared-budget:budget=8");
  spec.hook = std::make_shared<Named>();
  spec.budget.table = {{3, 4}};
  EXPECT_EQ(to_string(spec), "mine:budget=@unnamed");
  spec.budget.file = "table.json";
  EXPECT_EQ(to_string(spec), "mine:budget=@table.json");
}

TEST(PolicySpec, ABudgetTableHasOneEntryPerHead) {
  const std::string path = temporary_path("budgets.json");
  std::ofstream(path) << R"({"budgets": [[16, 32], [64, 8]]})";
  const PolicySpec spec = parse_policy("a2sf:budget=@" + path).value();
  EXPECT_EQ(resolve(spec, 1, 0, 0, 0).value().budget, 64);
  EXPECT_FALSE(resolve(spec, 2, 0, 0, 0));
  std::ofstream(path) << R"({"budgets": [[16, -1]]})";
  EXPECT_FALSE(parse_policy("a2sf:budget=@" + path));
}

}  // namespace
}  // namespace a2sf
