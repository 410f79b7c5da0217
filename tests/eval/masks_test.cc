// Masks beside a plain simulation of the same policies on the same probabilities.
#include "eval/masks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include "eval/mask_sums.h"
#include "support/tiny_model.h"

namespace a2sf {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

using Tokens = std::vector<std::int32_t>;
using Positions = std::set<std::int32_t>;

std::shared_ptr<const Model> masks_model(const TinyModel& shape = {}) {
  const std::string path = write_tiny_model(shape, temporary_path("masks.gguf"));
  auto model = Model::load(path, {.threads = 2, .isa = {}}).value();
  std::filesystem::remove(path);
  return model;
}

Tokens tokens(std::size_t count, unsigned seed = 7) {
  std::mt19937 generator(seed);
  Tokens tokens(count);
  for (auto& token : tokens) token = static_cast<std::int32_t>(generator() % 128);
  return tokens;
}

MaskReport masks_of(const std::shared_ptr<const Model>& model, const std::vector<Tokens>& sequences,
                    const std::vector<std::string>& policies) {
  std::vector<PolicySpec> specs;
  for (const std::string& policy : policies) specs.push_back(parse_policy(policy).value());
  return analyse_masks(model, sequences, specs, KvType::f32).value();
}

// ---- the simulation: everything from the probabilities of the full cache

using Rows = std::vector<std::vector<std::vector<double>>>;  // [row][query head of the group][position]

class Recorder final : public Observer {
 public:
  void observe(const HookLayer& layer) override {
    for (int h = 0; h < layer.kv_heads(); ++h) {
      const HookHead& head = layer.head(h);
      auto& row = heads[{layer.layer(), h}].emplace_back();
      for (int g = 0; g < head.group(); ++g) {
        const auto p = head.probabilities(0, g);
        auto& of_query = row.emplace_back(static_cast<std::size_t>(layer.position()) + 1);
        for (int slot = 0; slot < head.slots(); ++slot) {
          if (head.position(slot) >= 0)
            of_query[static_cast<std::size_t>(head.position(slot))] = p[static_cast<std::size_t>(slot)];
        }
      }
    }
  }

  std::map<std::pair<int, int>, Rows> heads;
};

std::map<std::pair<int, int>, Rows> probabilities_of(const std::shared_ptr<const Model>& model, const Tokens& text) {
  Session session = Session::create(model, {.policy = parse_policy("full").value(), .kv_type = KvType::f32}).value();
  const auto recorder = std::make_shared<Recorder>();
  EXPECT_TRUE(session.observe(recorder, {.every_row = true, .last_rows = 1}));
  EXPECT_TRUE(session.feed(text));
  return recorder->heads;
}

// What the rows of a head attend to under the recurrence, half of the budget being recent.
std::vector<Positions> simulate(const Rows& rows, double alpha, std::int32_t budget) {
  std::map<std::int32_t, double> scores;  // of what is held
  std::vector<Positions> masks;
  for (std::int32_t n = 0; n < static_cast<std::int32_t>(rows.size()); ++n) {
    scores[n] = 0;
    for (auto& entry : scores) entry.second *= alpha;
    Positions& mask = masks.emplace_back();
    for (const auto& entry : scores) mask.insert(entry.first);
    for (const auto& p : rows[static_cast<std::size_t>(n)]) {
      double sum = 0;
      for (const std::int32_t at : mask) sum += p[static_cast<std::size_t>(at)];
      for (auto& [at, score] : scores) score += p[static_cast<std::size_t>(at)] / sum;
    }
    if (static_cast<std::int32_t>(scores.size()) <= budget) continue;
    auto victim = scores.begin();
    for (auto at = scores.begin(); at != scores.end() && at->first <= n - budget / 2; ++at) {
      if (at->second < victim->second) victim = at;
    }
    scores.erase(victim);
  }
  return masks;
}

std::vector<double> group_sums(const std::vector<std::vector<double>>& queries) {
  std::vector<double> sums(queries[0].size());
  for (const auto& p : queries) {
    for (std::size_t i = 0; i < p.size(); ++i) sums[i] += p[i];
  }
  return sums;
}

Positions plain_ideal(const std::vector<double>& p, std::int32_t budget) {
  const auto now = static_cast<std::int32_t>(p.size()) - 1;
  std::vector<std::int32_t> earlier;
  for (std::int32_t at = 0; at < now; ++at) earlier.push_back(at);
  std::sort(earlier.begin(), earlier.end(), [&](std::int32_t a, std::int32_t b) {
    const double of_a = p[static_cast<std::size_t>(a)], of_b = p[static_cast<std::size_t>(b)];
    return of_a != of_b ? of_a > of_b : a > b;
  });
  Positions mask(earlier.begin(), earlier.begin() + std::min<std::ptrdiff_t>(budget, now));
  mask.insert(now);
  return mask;
}

MaskMeans plain_means(const Rows& rows, const std::vector<Positions>& masks, std::int32_t budget) {
  MaskMeans sum;
  for (std::size_t n = static_cast<std::size_t>(budget) + 1; n < rows.size(); ++n) {
    const auto p = group_sums(rows[n]);
    const Positions ideal = plain_ideal(p, budget);
    Positions both, either = ideal;
    double total = 0, mass = 0, ideal_mass = 0, age = 0;
    for (const double each : p) total += each;
    for (const std::int32_t at : masks[n]) {
      if (ideal.contains(at)) both.insert(at);
      either.insert(at);
      mass += p[static_cast<std::size_t>(at)];
      age += (static_cast<double>(n) - at) / static_cast<double>(n);
    }
    for (const std::int32_t at : ideal) ideal_mass += p[static_cast<std::size_t>(at)];
    const auto kept = static_cast<double>(masks[n].size()), shared = static_cast<double>(both.size());
    add(sum, {1, shared / std::sqrt(kept * static_cast<double>(ideal.size())),
              shared / static_cast<double>(either.size()), mass / total, ideal_mass / total, age / kept});
  }
  return mean_of(sum);
}

void expect_near(const MaskMeans& means, const MaskMeans& expected) {
  EXPECT_EQ(means.rows, expected.rows);
  EXPECT_NEAR(means.cosine, expected.cosine, 1e-9);
  EXPECT_NEAR(means.jaccard, expected.jaccard, 1e-9);
  EXPECT_NEAR(means.mass, expected.mass, 1e-5);
  EXPECT_NEAR(means.ideal_mass, expected.ideal_mass, 1e-5);
  EXPECT_NEAR(means.age, expected.age, 1e-9);
}

TEST(Masks, AreThoseOfAPlainSimulation) {
  const auto model = masks_model();
  for (const unsigned seed : {1U, 2U, 3U}) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    const Tokens text = tokens(150, seed);  // more than two steps
    const MaskReport report = masks_of(model, {text}, {"a2sf:alpha=0.9:budget=12", "h2o:budget=17"});
    for (const auto& [key, rows] : probabilities_of(model, text)) {
      const auto layer = static_cast<std::size_t>(key.first), head = static_cast<std::size_t>(key.second);
      SCOPED_TRACE(testing::Message() << "layer " << layer << ", KV head " << head);
      expect_near(report.policies[0].heads[layer][head], plain_means(rows, simulate(rows, 0.9, 12), 12));
      expect_near(report.policies[1].heads[layer][head], plain_means(rows, simulate(rows, 1, 17), 17));
      double sparsity = 0;
      for (const auto& row : rows) {
        auto p = group_sums(row);
        std::sort(p.begin(), p.end());
        double least = 0;
        while (!p.empty() && (least += p.back()) < 0.95 * static_cast<double>(row.size())) p.pop_back();
        sparsity += 1 - static_cast<double>(p.size() - 1) / static_cast<double>(row[0].size());
      }
      EXPECT_NEAR(report.sparsity[layer][head], sparsity / 150, 1e-9);
    }
  }
}

TEST(Masks, OfAllHeadsTogetherAreMeansOverAllRows) {
  const auto model = masks_model();
  const MaskReport both = masks_of(model, {tokens(40), tokens(90, 2)}, {"a2sf:budget=10"});
  const MaskReport first = masks_of(model, {tokens(40)}, {"a2sf:budget=10"});
  const MaskReport second = masks_of(model, {tokens(90, 2)}, {"a2sf:budget=10"});
  EXPECT_EQ(first.policies[0].all.rows, 2U * 2 * (40 - 11));
  EXPECT_EQ(second.policies[0].all.rows, 2U * 2 * (90 - 11));
  EXPECT_EQ(both.policies[0].all.rows, 2U * 2 * (29 + 79));
  EXPECT_NEAR(both.policies[0].all.cosine,
              (29 * first.policies[0].all.cosine + 79 * second.policies[0].all.cosine) / 108, 1e-12);
}

TEST(Masks, TheIdealOneIsItselfAndNoOtherHasMoreOfTheAttention) {
  const MaskReport report =
      masks_of(masks_model(), {tokens(100)}, {"ideal:budget=10", "a2sf:budget=10", "tova:budget=10"});
  EXPECT_DOUBLE_EQ(report.policies[0].all.cosine, 1);
  EXPECT_DOUBLE_EQ(report.policies[0].all.jaccard, 1);
  for (const PolicyMasks& policy : report.policies) {
    EXPECT_DOUBLE_EQ(policy.all.ideal_mass, report.policies[0].all.mass);
    EXPECT_LE(policy.all.mass, policy.all.ideal_mass);
  }
}

TEST(Masks, ABudgetOfTheWholeSequenceHasNothingToCompare) {
  const MaskReport report = masks_of(masks_model(), {tokens(64)},
                                     {"a2sf:budget=64", "a2sf:budget=63", "a2sf:budget=62", "ideal:budget=100%"});
  EXPECT_EQ(report.policies[0].all.rows, 0U);
  EXPECT_EQ(report.policies[1].all.rows, 0U);
  EXPECT_EQ(report.policies[2].all.rows, 2U * 2);
  EXPECT_EQ(report.policies[3].all.rows, 0U);
  EXPECT_THAT(report.policies[0].slots, IsEmpty());
}

// A layer with a sliding window of 16 chooses among 15 earlier tokens at most.
TEST(Masks, AWindowLeavesLessToChooseFrom) {
  const auto model = masks_model({.architecture = "gemma3", .layers = 6, .window = 16});
  const MaskReport report = masks_of(model, {tokens(60)}, {"a2sf:budget=8", "a2sf:budget=16", "ideal:budget=8"});
  for (std::size_t layer = 0; layer < 6; ++layer) {
    const bool has_window = model->info().windows[layer] > 0;
    EXPECT_EQ(report.policies[0].heads[layer][0].rows, 60U - 9);
    EXPECT_EQ(report.policies[1].heads[layer][0].rows, has_window ? 0U : 60U - 17);
    EXPECT_LE(report.policies[0].heads[layer][0].mass, report.policies[2].heads[layer][0].mass);
  }
}

TEST(MaskPictures, AreOfTheLongestSequence) {
  const MaskReport report = masks_of(masks_model(), {tokens(20), tokens(50), tokens(30)},
                                     {"local:budget=8", "streaming:budget=8", "ideal:budget=8"});
  for (const PolicyMasks& policy : report.policies) {
    ASSERT_EQ(policy.pictures.size(), 2U) << "a model of two layers";
    EXPECT_EQ(policy.pictures[1].layer, 1);
    for (const MaskPicture& picture : policy.pictures) ASSERT_EQ(picture.kept.size(), 50U);
  }
  EXPECT_THAT(report.policies[0].pictures[0].kept[5], ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT(report.policies[0].pictures[0].kept[49], ElementsAre(41, 42, 43, 44, 45, 46, 47, 48, 49));
  EXPECT_THAT(report.policies[1].pictures[0].kept[49], ElementsAre(0, 1, 2, 3, 45, 46, 47, 48, 49));
  EXPECT_EQ(report.policies[2].pictures[1].kept[49].size(), 9U);
}

TEST(MaskTilt, SharesAddUpAndTheWindowIsNew) {
  const MaskReport report =
      masks_of(masks_model(), {tokens(100)}, {"local:budget=10", "h2o:budget=10", "ideal:budget=10"});
  const auto sum = [](const Tilt& tilt) { return std::accumulate(tilt.begin(), tilt.end(), 0.0); };
  EXPECT_NEAR(sum(report.attention), 1, 1e-9);
  for (const PolicyMasks& policy : report.policies) EXPECT_NEAR(sum(policy.slots), 1, 1e-9);
  EXPECT_NEAR(sum(report.policies[1].scores), 1, 1e-9);
  EXPECT_THAT(report.policies[2].scores, IsEmpty()) << "an oracle has none";
  EXPECT_EQ(report.policies[0].slots.front(), 0);
  EXPECT_GT(report.policies[0].slots.back(), 0.3);
}

TEST(MaskTilt, ATokenLiesInAllBinsThatItsPlaceOverlaps) {
  for (const std::size_t length : {1U, 7U, 20U, 33U}) {
    TiltSum even;
    even.add(std::span<const float>(std::vector<float>(length, 0.25F)));
    EXPECT_THAT(even.mean(), Each(testing::DoubleNear(0.05, 1e-12))) << length;
  }
  TiltSum first;
  first.add(std::span<const float>(std::vector<float>{2, 0, 0, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_DOUBLE_EQ(first.mean()[0], 0.5);
  EXPECT_DOUBLE_EQ(first.mean()[1], 0.5);
  TiltSum none;
  none.add(std::span<const float>(std::vector<float>(5)));
  EXPECT_THAT(none.mean(), IsEmpty());
}

TEST(IdealMask, OfEqualTokensTheNewerStay) {
  const TrueRow row{.oldest = 0, .probabilities = {0.25F, 0.125F, 0.125F, 0.125F, 0.0F}};
  EXPECT_THAT(ideal_mask(row, 2), ElementsAre(1, 0, 0, 1, 1));
  EXPECT_THAT(ideal_mask({.oldest = 2, .probabilities = {0, 0, 0.5F, 0.5F, 1}}, 1), ElementsAre(0, 0, 0, 1, 1));
}

TEST(Masks, APromptThatIsKeptWholeIsRefused) {
  const std::vector<Tokens> sequences = {tokens(20)};
  const std::vector<PolicySpec> specs = {parse_policy("a2sf:budget=8:block=prompt").value()};
  EXPECT_THAT(analyse_masks(masks_model(), sequences, specs, KvType::f16).error().message,
              HasSubstr("a2sf:budget=8:block=prompt keeps all of a prompt until its end"));
}

TEST(Masks, CountTheirTokensAndCanBeStopped) {
  const std::vector<Tokens> sequences = {tokens(100), tokens(30)};
  const std::vector<PolicySpec> specs = {parse_policy("a2sf:budget=20%").value()};
  std::vector<std::size_t> counts;
  const auto count = [&](std::size_t done, std::size_t total) {
    EXPECT_EQ(total, 130U);
    counts.push_back(done);
    return done < 120;
  };
  const auto stopped = analyse_masks(masks_model(), sequences, specs, KvType::f16, count);
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().kind, ErrorKind::cancelled);
  EXPECT_THAT(counts, ElementsAre(64, 100, 130));
}

}  // namespace
}  // namespace a2sf
