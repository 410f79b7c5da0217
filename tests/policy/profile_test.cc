#include <a2sf/policy.h>
#include <a2sf/profile.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <ostream>

#include "policy/retention.h"
#include "policy/shipped_profiles.h"
#include "support/tiny_model.h"

namespace a2sf {
namespace {

using testing::HasSubstr;
using Budgets = std::vector<std::vector<std::int64_t>>;

constexpr const char* kTwoByTwo = R"({"shares": [[4, 2], [1, 1]], "alphas": [[0.5, 0], [1, 0.25]]})";

PolicySpec spec_with(const char* text, const char* profile = kTwoByTwo) {
  PolicySpec spec = parse_policy(text).value();
  EXPECT_TRUE(share_by(spec, std::make_shared<const Profile>(parse_profile(profile).value())));
  return spec;
}

HeadRule rule_of(const PolicySpec& spec, int layer, int kv_head, std::int64_t tokens = 0, std::int64_t window = 0) {
  return resolve(spec, layer, 0, kv_head, tokens, window).value();
}

TEST(Profile, SharesOutInProportion) {
  EXPECT_EQ(share_out(parse_profile(kTwoByTwo).value(), 16, 1), (Budgets{{32, 16}, {8, 8}}));
}

TEST(Profile, TheLargestRemaindersAreRoundedUpAndOfEqualOnesTheEarlier) {
  // 3 per head is 9: 4.5, 2.25, 2.25; then 3 and 3 of 6 heads.
  EXPECT_EQ(share_out(parse_profile(R"({"shares": [[2, 1, 1]]})").value(), 3, 1), (Budgets{{5, 2, 2}}));
  EXPECT_EQ(share_out(parse_profile(R"({"shares": [[2, 2], [1, 1]]})").value(), 1, 1), (Budgets{{1, 1}, {1, 1}}));
  EXPECT_EQ(share_out(parse_profile(R"({"shares": [[3, 3, 2]]})").value(), 3, 1), (Budgets{{4, 3, 2}}));
}

TEST(Profile, NoHeadGetsLessThanTheLeastAndTheOthersPayForIt) {
  EXPECT_EQ(share_out(parse_profile(R"({"shares": [[1e-300, 3, 1]]})").value(), 10, 5), (Budgets{{5, 19, 6}}));
  // What the first head takes leaves less than the least to the second.
  EXPECT_EQ(share_out(parse_profile(R"({"shares": [[1, 50, 149]]})").value(), 40, 30), (Budgets{{30, 30, 60}}));
}

TEST(Profile, EqualSharesGiveEveryHeadTheMean) {
  for (const int heads : {1, 3, 7, 49, 90}) {
    const Profile profile{.tables = {{.shares = {std::vector<double>(static_cast<std::size_t>(heads), .7)}}}};
    for (const std::int64_t mean : {1, 2, 49, 1023})
      EXPECT_EQ(share_out(profile, mean, mean)[0], std::vector<std::int64_t>(static_cast<std::size_t>(heads), mean));
  }
}

RC_GTEST_PROP(Profile, TheTotalIsExactAndEveryHeadIsWithinOneOfItsShare, ()) {
  const auto layers = *rc::gen::inRange<std::size_t>(1, 9), heads = *rc::gen::inRange<std::size_t>(1, 9);
  Profile profile{.tables = {{}}};
  auto& shares = profile.tables.front().shares;
  for (std::size_t i = 0; i < layers; ++i) {
    auto& row = shares.emplace_back();
    while (row.size() < heads) row.push_back(*rc::gen::inRange(1, 100) * std::pow(10.0, *rc::gen::inRange(-8, 9)));
  }
  const auto mean = *rc::gen::inRange<std::int64_t>(1, 100000), least = *rc::gen::inRange<std::int64_t>(1, mean + 1);
  std::int64_t total = 0;
  std::vector<std::pair<double, std::int64_t>> by_share;
  const auto budgets = share_out(profile, mean, least);
  for (std::size_t layer = 0; layer < layers; ++layer) {
    for (std::size_t head = 0; head < heads; ++head) {
      total += budgets[layer][head];
      RC_ASSERT(budgets[layer][head] >= least);
      by_share.emplace_back(shares[layer][head], budgets[layer][head]);
    }
  }
  RC_ASSERT(total == mean * static_cast<std::int64_t>(layers * heads));
  std::sort(by_share.begin(), by_share.end());
  for (std::size_t i = 1; i < by_share.size(); ++i) RC_ASSERT(by_share[i - 1].second <= by_share[i].second + 1);
}

TEST(Profile, TheBudgetIsTheMeanOfACountOrARatio) {
  EXPECT_EQ(rule_of(spec_with("a2sf:budget=16"), 0, 0).budget, 32);
  EXPECT_EQ(rule_of(spec_with("a2sf:budget=10%"), 0, 1, 160).budget, 16);
  EXPECT_EQ(rule_of(spec_with("a2sf:budget=16"), 0, 0).recent, 16) << "half of its own budget";
}

TEST(Profile, IsSharedOutOverTheBoundedLayersOnly) {
  const PolicySpec spec = spec_with("a2sf:budget=16:layers=0");
  EXPECT_EQ(rule_of(spec, 0, 0).budget, 21);
  EXPECT_EQ(rule_of(spec, 0, 1).budget, 11);
  EXPECT_EQ(rule_of(spec, 1, 0).mode, RetentionMode::all);
}

TEST(Profile, AWindowBoundsAHeadsShare) {
  EXPECT_EQ(rule_of(spec_with("a2sf:budget=16"), 0, 0, 0, 20).budget, 20);
  EXPECT_EQ(rule_of(spec_with("a2sf:budget=16"), 1, 0, 0, 20).budget, 8);
}

TEST(Profile, EveryHeadGetsWhatMustStay) {
  const PolicySpec counts = spec_with("a2sf:budget=16:sink=6:recent=5");
  EXPECT_EQ(rule_of(counts, 1, 1).budget, 11);
  EXPECT_EQ(rule_of(counts, 0, 0).budget + rule_of(counts, 0, 1).budget, 42);
  const PolicySpec ratio = spec_with("a2sf:budget=16:pin=5:recent=0.5");
  EXPECT_EQ(rule_of(ratio, 1, 1).budget, 9) << "5 pinned tokens and 4 recent ones";
  EXPECT_FALSE(resolve(spec_with("a2sf:budget=10:sink=6:recent=5"), 0, 0, 0, 0, 0));
}

TEST(Profile, ItsAlphasHoldUnlessOneIsGiven) {
  EXPECT_EQ(rule_of(spec_with("a2sf:budget=16"), 0, 0).alpha, .5);
  EXPECT_EQ(rule_of(spec_with("a2sf:budget=16"), 0, 1).alpha, 0);
  EXPECT_EQ(rule_of(spec_with("a2sf:budget=16:alpha=0.75"), 0, 0).alpha, .75);
  EXPECT_DOUBLE_EQ(rule_of(spec_with("a2sf:budget=16:alpha=auto"), 0, 0).alpha, 1 - 1 / 48.0);
  EXPECT_DOUBLE_EQ(rule_of(spec_with("a2sf:budget=16", R"({"shares": [[2, 1]]})"), 0, 0).alpha, 1 - 1 / 31.5);
}

TEST(Profile, AMemoryIsOneOfEachHeadsOwnBudget) {
  const char* memories = R"({"shares": [[3, 1]], "memories": [[2, 0.5]]})";
  EXPECT_DOUBLE_EQ(rule_of(spec_with("a2sf:budget=16", memories), 0, 0).alpha, 1 - 1 / 48.0);
  EXPECT_DOUBLE_EQ(rule_of(spec_with("a2sf:budget=16", memories), 0, 1).alpha, 1 - 1 / 4.0);
  EXPECT_DOUBLE_EQ(rule_of(spec_with("a2sf:budget=16:memory=1", memories), 0, 1).alpha, 1 - 1 / 8.0);
}

TEST(Profile, ItsScoreIsTakenOverByThePlainPolicyOfThatName) {
  const char* tuned = R"({"shares": [[1, 1]], "policy": "a2sf:power=1.5:value-weight=on:sink=1"})";
  const HeadRule rule = rule_of(spec_with("a2sf:budget=16", tuned), 0, 0);
  EXPECT_EQ(rule.power, 1.5);
  EXPECT_TRUE(rule.value_weight);
  EXPECT_EQ(rule.sink, 1);
  EXPECT_DOUBLE_EQ(rule.alpha, 1 - 1 / 32.0);
  EXPECT_EQ(to_string(spec_with("a2sf:budget=16", tuned)),
            "a2sf:power=1.5:value-weight=on:budget=16:profile=unnamed:sink=1");
  EXPECT_EQ(rule_of(spec_with("a2sf:budget=16:alpha=0.5", tuned), 0, 0).alpha, 0.5);
  EXPECT_EQ(rule_of(spec_with("a2sf:budget=16:sink=2", tuned), 0, 0).sink, 2);
  EXPECT_EQ(rule_of(spec_with("h2o:budget=16", tuned), 0, 0).power, 1) << "it is another policy";
}

TEST(Profile, ALocalHeadKeepsTheFirstTokensAndTheNewest) {
  const char* hybrid = R"({"shares": [[3, 1]], "local": [[0, 1]]})";
  const HeadRule global = rule_of(spec_with("a2sf:budget=16", hybrid), 0, 0);
  EXPECT_EQ(global.sink, 0);
  EXPECT_EQ(global.recent, 12);
  const HeadRule local = rule_of(spec_with("a2sf:budget=16", hybrid), 0, 1);
  EXPECT_EQ(local.budget, 8);
  EXPECT_EQ(local.sink, 4);
  EXPECT_EQ(local.recent, 4);
  EXPECT_EQ(rule_of(spec_with("h2o:budget=16:sink=6", hybrid), 0, 1).recent, 2) << "any policy, and its own sinks";
  EXPECT_EQ(rule_of(spec_with("a2sf:budget=16:pin=5", hybrid), 0, 1).recent, 3);
  EXPECT_EQ(rule_of(spec_with("a2sf:budget=4", hybrid), 0, 1).sink, 1) << "one token is for the newest";
  EXPECT_EQ(rule_of(spec_with("ideal:budget=16", hybrid), 0, 1).recent, 0);
}

TEST(Profile, ItsBoundedLayersAreTakenOverUnlessSomeAreGiven) {
  const char* long_term = R"({"shares": [[1], [9], [3]], "policy": "a2sf:layers=0+2"})";
  const PolicySpec spec = spec_with("a2sf:budget=16", long_term);
  EXPECT_EQ(rule_of(spec, 0, 0).budget, 8);
  EXPECT_EQ(rule_of(spec, 1, 0).mode, RetentionMode::all);
  EXPECT_EQ(rule_of(spec, 2, 0).budget, 24);
  EXPECT_EQ(to_string(spec), "a2sf:budget=16:profile=unnamed:layers=0+2");
  EXPECT_EQ(rule_of(spec_with("a2sf:budget=16:layers=1", long_term), 1, 0).budget, 16);
  EXPECT_EQ(rule_of(spec_with("h2o:budget=13", long_term), 1, 0).budget, 27) << "it is another policy";
}

TEST(Profile, APolicyThatCannotBeReadIsAnErrorThatSaysSo) {
  PolicySpec spec = parse_policy("a2sf").value();
  const auto profile = parse_profile(R"({"shares": [[1]], "policy": "a2sf:power=7"})").value();
  const auto shared = share_by(spec, std::make_shared<const Profile>(profile));
  ASSERT_FALSE(shared);
  EXPECT_THAT(shared.error().message, HasSubstr("the profile's policy: power '7'"));
}

TEST(Profile, APolicyThatNamesItsOwnProfileIsRefused) {
  const std::string path = temporary_path("itself.json");
  std::ofstream(path) << R"({"shares": [[1]], "policy": "a2sf:profile=)" << path << "\"}";
  const auto spec = parse_policy("a2sf:profile=" + path);
  std::filesystem::remove(path);
  ASSERT_FALSE(spec);
  EXPECT_THAT(spec.error().message, HasSubstr("options of the score"));
}

TEST(Profile, H2oAndTovaKeepTheirAlphas) {
  EXPECT_EQ(rule_of(spec_with("h2o:budget=16"), 0, 0).alpha, 1);
  EXPECT_EQ(rule_of(spec_with("tova:budget=16"), 1, 0).alpha, 0);
}

TEST(Profile, IsRefusedWithATableAndForAnotherShapeOfModel) {
  PolicySpec with_table = parse_policy("a2sf").value();
  with_table.budget.budget = BudgetTable{{{8, 8}, {8, 8}}};
  EXPECT_FALSE(share_by(with_table, std::make_shared<const Profile>(parse_profile(kTwoByTwo).value())));
  const std::vector<int> two = {0, 0}, three = {0, 0, 0};
  EXPECT_TRUE(resolve_all(spec_with("a2sf"), two, 2, 0));
  EXPECT_FALSE(resolve_all(spec_with("a2sf"), three, 2, 0));
  const auto wide = resolve_all(spec_with("a2sf"), two, 3, 0);
  ASSERT_FALSE(wide);
  EXPECT_THAT(wide.error().message, HasSubstr("the profile is for 2 layers of 2 KV heads, the model has 2 of 3"));
}

TEST(Profile, IsReadFromAFileAndPrintedInTheSpec) {
  const std::string path = temporary_path("profile.json");
  std::ofstream(path) << kTwoByTwo;
  const auto spec = parse_policy("a2sf:budget=16:alpha=auto:profile=" + path).value();
  std::filesystem::remove(path);
  EXPECT_EQ(rule_of(spec, 0, 0).budget, 32);
  EXPECT_EQ(to_string(spec), "a2sf:alpha=auto:budget=16:profile=" + path);
}

TEST(Profile, OneThatWasNeverParsedIsCheckedToo) {
  PolicySpec spec = parse_policy("a2sf:budget=16").value();
  ASSERT_TRUE(share_by(spec, std::make_shared<const Profile>(Profile{.tables = {{.shares = {{1, 2}, {3}}}}})));
  EXPECT_FALSE(resolve(spec, 1, 0, 0, 0, 0));
}

constexpr const char* kTwoTables = R"({"tables": [{"mean": 16, "shares": [[1, 3]], "alphas": [[0.5, 0.25]]},
                                                  {"mean": 256, "shares": [[3, 1]], "memories": [[1, 2]], "local": [[0, 1]]}]})";

TEST(Profile, TheTableOfTheNearestMeanSharesOut) {
  const Profile profile = parse_profile(kTwoTables).value();
  EXPECT_EQ(share_out(profile, 4, 1), (Budgets{{2, 6}}));
  EXPECT_EQ(share_out(profile, 64, 1), (Budgets{{32, 96}}));  // as far from 16 as from 256
  EXPECT_EQ(share_out(profile, 66, 1), (Budgets{{99, 33}}));
  EXPECT_EQ(share_out(profile, 1000, 1), (Budgets{{1500, 500}}));
}

TEST(Profile, AlphasAreThoseOfTheTableThatSharesOut) {
  EXPECT_EQ(rule_of(spec_with("a2sf:budget=16", kTwoTables), 0, 1).alpha, 0.25);
  EXPECT_EQ(rule_of(spec_with("a2sf:budget=256", kTwoTables), 0, 1).alpha, 1 - 1 / (2 * 128.0));
}

TEST(Profile, ReadsBackAsItIsWritten) {
  Profile profile = parse_profile(kTwoTables).value();
  profile.policy = "a2sf:power=1.5";
  profile.model = "tiny \"model\"";
  profile.model_hash = "0123456789abcdef";
  profile.texts = {{"a.txt", text_hash("a")}, {"b.txt", text_hash("b")}};
  const Profile again = parse_profile(to_json(profile)).value();
  EXPECT_EQ(to_json(again), to_json(profile));
  EXPECT_EQ(again.policy, profile.policy);
  EXPECT_EQ(again.model, profile.model);
  EXPECT_EQ(again.model_hash, profile.model_hash);
  EXPECT_EQ(again.tables[0].alphas, profile.tables[0].alphas);
  EXPECT_EQ(again.tables[1].shares, profile.tables[1].shares);
  EXPECT_EQ(again.tables[1].memories, profile.tables[1].memories);
  EXPECT_TRUE(again.tables[0].local.empty());
  EXPECT_EQ(again.tables[1].local, profile.tables[1].local);
  EXPECT_TRUE(again.was_tuned_on(text_hash("b")));
  EXPECT_FALSE(again.was_tuned_on(text_hash("c")));
}

TEST(ShippedProfiles, AreAllValidAndFoundByNameAndModel) {
  for (const ShippedText& text : kShippedTexts) {
    SCOPED_TRACE(std::string(text.name));
    const auto profile = parse_profile(text.json);
    ASSERT_TRUE(profile) << profile.error().message;
    ASSERT_NE(find_shipped_profile(text.name), nullptr);
    EXPECT_EQ(read_profile(std::string(text.name)).value().file, text.name);
    const auto slash = text.name.find('/');
    const auto domain = slash == std::string_view::npos ? std::string_view() : text.name.substr(0, slash);
    ASSERT_NE(shipped_profile(profile->model_hash, domain), nullptr);
    EXPECT_EQ(shipped_profile(profile->model_hash, domain)->file, text.name);
    EXPECT_FALSE(profile->texts.empty());
  }
  EXPECT_EQ(shipped_profile(""), nullptr);
  EXPECT_EQ(shipped_profile("0000000000000000"), nullptr);
}

TEST(ShippedProfiles, OfADomainAreFoundByItsName) {
  EXPECT_THAT(shipped_domains(), testing::ElementsAre("code", "dialogue", "mathematics", "prose"));
  const std::string hash = read_profile("smollm2-135m").value().model_hash;
  for (const std::string& domain : shipped_domains())
    EXPECT_EQ(shipped_profile(hash, domain)->file, domain + "/smollm2-135m");
  EXPECT_EQ(shipped_profile(hash, "poetry"), nullptr);
}

struct WrongText {
  std::string json, mention;
  friend std::ostream& operator<<(std::ostream& out, const WrongText& wrong) { return out << wrong.json; }
};

class BadProfile : public testing::TestWithParam<WrongText> {};

TEST_P(BadProfile, IsOneLineThatSaysWhatIsWrong) {
  const auto profile = parse_profile(GetParam().json);
  ASSERT_FALSE(profile);
  EXPECT_EQ(profile.error().kind, ErrorKind::bad_input);
  EXPECT_THAT(profile.error().message, HasSubstr(GetParam().mention));
  EXPECT_EQ(profile.error().message.find('\n'), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(
    Texts, BadProfile,
    testing::Values(WrongText{"", "shares"}, WrongText{"[1]", "shares"}, WrongText{R"({"shares": 1})", "shares"},
                    WrongText{R"({"shares": []})", "shares"}, WrongText{R"({"shares": [[]]})", "0 KV heads"},
                    WrongText{R"({"shares": [[1, 2], [3]]})", "layer 1"},
                    WrongText{R"({"shares": [[1, "2"]]})", "shares"}, WrongText{R"({"shares": [[1, null]]})", "shares"},
                    WrongText{R"({"shares": [[1, 0]]})", "shares 0 of layer 0, KV head 1"},
                    WrongText{R"({"shares": [[1, -1]]})", "shares -1"},
                    WrongText{R"({"shares": [[1, 1e999]]})", "shares"},
                    WrongText{R"({"shares": [[1]], "alphas": [[1.5]]})", "alphas 1.5 of layer 0, KV head 0"},
                    WrongText{R"({"shares": [[1]], "alphas": [[1, 1]]})", "alphas of 2 KV heads"},
                    WrongText{R"({"shares": [[1]], "alphas": [[1], [1]]})", "alphas of 2 layers"},
                    WrongText{R"({"shares": [[1]], "alphas": []})", "alphas"},
                    WrongText{R"({"shares": [[1]], "memories": [[0]]})", "memories 0 of layer 0"},
                    WrongText{R"({"shares": [[1]], "alphas": [[1]], "memories": [[1]]})", "not both"},
                    WrongText{R"({"shares": [[1, 1]], "local": [[1, 0.5]]})", "local 0.5 of layer 0, KV head 1"},
                    WrongText{R"({"shares": [[1]], "local": [[1, 0]]})", "local of 2 KV heads"},
                    WrongText{R"({"tables": 1})", "tables"}, WrongText{R"({"tables": []})", "no table"},
                    WrongText{R"({"tables": [1]})", "shares"},
                    WrongText{R"({"tables": [{"mean": 0, "shares": [[1]]}]})", "mean"},
                    WrongText{R"({"tables": [{"mean": 1.5, "shares": [[1]]}]})", "mean"},
                    WrongText{R"({"tables": [{"mean": 9, "shares": [[1]]}, {"mean": 8, "shares": [[1]]}]})", "order"},
                    WrongText{R"({"tables": [{"mean": 8, "shares": [[1]]}, {"mean": 9, "shares": [[1, 2]]}]})",
                              "shares of 2 KV heads"}));

}  // namespace
}  // namespace a2sf
