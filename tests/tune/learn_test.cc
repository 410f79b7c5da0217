// Learned scores: training on samples whose answer is known, and samples beside a plain count.
#include "tune/learn.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <random>

#include "support/tiny_model.h"
#include "tune/attention_samples.h"
#include "tune/train.h"

namespace a2sf {
namespace {

constexpr std::size_t kDecisions = 300, kTokens = 40;

// Features of chance. `log_added` says what a token adds; a decision's own constant is added, which no token of it has
// more of than another.
template <class LogAdded>
AttentionSamples samples_of(LogAdded log_added) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  AttentionSamples samples;
  for (std::size_t d = 0; d < kDecisions; ++d) {
    const float own = normal(random);
    for (std::size_t i = 0; i < kTokens; ++i) {
      Features x;
      for (std::size_t f = 0; f < x.size(); ++f) x[f] = normal(random) * static_cast<float>(f + 1) + 7;
      samples.features.push_back(x);
      // So much that the little which training adds to it is nothing.
      samples.drawn.push_back(std::exp(log_added(x) + own - x[kLogValueNorm] + 50));
    }
    samples.ends.push_back(samples.features.size());
  }
  return samples;
}

// Within the decisions: 1 where the prediction is the truth but for a constant.
template <class Truth>
double correlation(const LearnedLayer& layer, const AttentionSamples& samples, Truth truth) {
  double products = 0, of_predicted = 0, of_true = 0;
  for (std::size_t d = 0; d < samples.ends.size(); ++d) {
    std::vector<double> predicted, expected;
    for (std::size_t i = samples.ends[d] - kTokens; i < samples.ends[d]; ++i) {
      predicted.push_back(predict(layer, samples.features[i]));
      expected.push_back(truth(samples.features[i]));
    }
    const auto mean = [](const std::vector<double>& x) { return std::accumulate(x.begin(), x.end(), 0.0) / kTokens; };
    const double p = mean(predicted), e = mean(expected);
    for (std::size_t i = 0; i < kTokens; ++i) {
      products += (predicted[i] - p) * (expected[i] - e);
      of_predicted += (predicted[i] - p) * (predicted[i] - p);
      of_true += (expected[i] - e) * (expected[i] - e);
    }
  }
  return products / std::sqrt(of_predicted * of_true);
}

TEST(Train, ALinearRuleIsFound) {
  const auto rule = [](const Features& x) { return 0.5F * x[0] - 0.25F * x[2] + 0.125F * x[5]; };
  const AttentionSamples samples = samples_of(rule);
  const LearnedLayer layer = train_linear(samples);
  EXPECT_NEAR(layer.output[0] / layer.deviation[0], 0.5, 0.01);
  EXPECT_NEAR(layer.output[1] / layer.deviation[1], 0, 0.01);
  EXPECT_NEAR(layer.output[2] / layer.deviation[2], -0.25, 0.01);
  EXPECT_NEAR(layer.output[5] / layer.deviation[5], 0.125, 0.01);
  EXPECT_GT(correlation(layer, samples, rule), 0.999);
}

TEST(Train, AFoldIsFoundByThePerceptronAlone) {
  const auto fold = [](const Features& x) { return std::abs(x[0] - 7); };
  const AttentionSamples samples = samples_of(fold);
  EXPECT_LT(correlation(train_linear(samples), samples, fold), 0.2);
  EXPECT_GT(correlation(train_mlp(samples), samples, fold), 0.95);
}

TEST(Train, TheSameSamplesMakeTheSameModel) {
  const AttentionSamples samples = samples_of([](const Features& x) { return 0.1F * x[3]; });
  EXPECT_EQ(to_json(LearnedModel{.layers = {train_mlp(samples)}}),
            to_json(LearnedModel{.layers = {train_mlp(samples)}}));
}

TEST(Train, NoSamplesLetTheOlderGo) {
  EXPECT_EQ(predict(train_linear({}), {1, 2, 3, 4, 5, 6}), 0);
  EXPECT_EQ(predict(train_mlp({}), {1, 2, 3, 4, 5, 6}), 0);
}

TEST(Train, AFeatureThatNeverVariesCountsForNothing) {
  AttentionSamples samples = samples_of([](const Features& x) { return x[0]; });
  for (Features& x : samples.features) x[4] = 2;
  for (const LearnedLayer& layer : {train_linear(samples), train_mlp(samples)})
    EXPECT_TRUE(std::isfinite(predict(layer, samples.features.front())));
}

std::shared_ptr<const Model> learn_model() {
  const std::string path = write_tiny_model({.context = 1024}, temporary_path("learn.gguf"));
  auto model = Model::load(path, {.threads = 2, .isa = {}}).value();
  std::filesystem::remove(path);
  return model;
}

std::vector<std::int32_t> text(std::size_t count) {
  std::mt19937 generator(11);
  std::vector<std::int32_t> tokens(count);
  for (auto& token : tokens) token = static_cast<std::int32_t>(generator() % 128);
  return tokens;
}

// What each token of the full cache draws in each row, by [layer, KV head].
class EachRow final : public Observer {
 public:
  void observe(const HookLayer& layer) override {
    for (int h = 0; h < layer.kv_heads(); ++h) {
      const HookHead& head = layer.head(h);
      std::vector<double> row(static_cast<std::size_t>(layer.position() + 1));
      for (int g = 0; g < head.group(); ++g) {
        for (int slot = 0; slot < head.slots(); ++slot) {
          if (head.position(slot) >= 0)
            row[static_cast<std::size_t>(head.position(slot))] +=
                head.probabilities(0, g)[static_cast<std::size_t>(slot)];
        }
      }
      rows[{layer.layer(), h}].push_back(row);
    }
  }
  std::map<std::pair<int, int>, std::vector<std::vector<double>>> rows;
};

TEST(Samples, AreWhatTheFullCacheReadsInTheRowsThatFollow) {
  constexpr std::int64_t kBudget = 20;
  const auto model = learn_model();
  const auto tokens = text(kBudget + kDecisionBlock + static_cast<std::size_t>(kDrawnRows));
  const auto samples = collect_samples(model, {tokens, tokens.size(), 1}, kBudget, {}).value();
  ASSERT_EQ(samples.size(), 2U);

  auto session = Session::create(model, {parse_policy("full").value()}).value();
  const auto full = std::make_shared<EachRow>();
  ASSERT_TRUE(session.observe(full, {.every_row = true, .last_rows = 1}));
  ASSERT_TRUE(session.feed(tokens));
  // One decision of each head, after the row that fills budget and block: half the budget is recent.
  const std::size_t row = kBudget + kDecisionBlock - 1, candidates = row + 1 - kBudget / 2;
  for (int layer = 0; layer < 2; ++layer) {
    const AttentionSamples& mine = samples[static_cast<std::size_t>(layer)];
    ASSERT_EQ(mine.ends, (std::vector<std::size_t>{candidates, 2 * candidates}));
    for (int h = 0; h < 2; ++h) {
      const auto& rows = full->rows[{layer, h}];
      for (std::size_t position = 0; position < candidates; ++position) {
        double drawn = 0;
        for (std::size_t r = row + 1; r <= row + static_cast<std::size_t>(kDrawnRows); ++r) drawn += rows[r][position];
        const std::size_t sample = static_cast<std::size_t>(h) * candidates + position;
        EXPECT_NEAR(mine.drawn[sample], drawn, 1e-4) << layer << ' ' << h << ' ' << position;
        EXPECT_NEAR(mine.features[sample][kLogAge], std::log(row - position + 1.0), 1e-5);
      }
    }
  }
}

TEST(Learn, AShortWindowIsRefused) {
  const auto model = learn_model();
  const auto tokens = text(100);
  const auto learned = learn_score(model, {tokens, 64, 1}, {LearnedKind::linear, 20});
  ASSERT_FALSE(learned);
  EXPECT_NE(learned.error().message.find("a window of 64 tokens"), std::string::npos) << learned.error().message;
}

TEST(Learn, ItCanBeInterruptedInTraining) {
  const auto model = learn_model();
  const auto tokens = text(kDecisionBlock + 20 + static_cast<std::size_t>(kDrawnRows));
  const auto learned = learn_score(model, {tokens, tokens.size(), 1}, {LearnedKind::mlp, 20},
                                   [&](std::size_t done, std::size_t) { return done <= tokens.size(); });
  ASSERT_FALSE(learned);
  EXPECT_EQ(learned.error().kind, ErrorKind::cancelled);
}

}  // namespace
}  // namespace a2sf
