// Damage beside a plain computation of the same sums, and what tuning makes of it.
#include "tune/damage.h"

#include <a2sf/profile.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <random>

#include "kernels/rows.h"
#include "model/model_parts.h"
#include "support/tiny_model.h"
#include "tune/layer_weights.h"
#include "tune/tune.h"

namespace a2sf {
namespace {

using testing::HasSubstr;

std::shared_ptr<const Model> tiny(const TinyModel& shape = {}) {
  const std::string path = write_tiny_model(shape, temporary_path("damage.gguf"));
  auto model = Model::load(path, {.threads = 2, .isa = {}}).value();
  std::filesystem::remove(path);
  return model;
}

std::vector<std::int32_t> tokens(std::size_t count) {
  std::mt19937 generator(7);
  std::vector<std::int32_t> tokens(count);
  for (auto& token : tokens) token = static_cast<std::int32_t>(generator() % 128);
  return tokens;
}

PolicySpec a2sf() { return parse_policy("a2sf").value(); }

// The projection of the difference itself, row by row.
class PlainDamage final : public ShadowObserver {
 public:
  explicit PlainDamage(const Weights& weights) : weights_(weights), sums_(2, std::vector<double>(2)) {}

  void outputs(const ShadowRow& row) override {
    if (row.position % 4 != 0) return;
    const auto& output = weights_.layers[static_cast<std::size_t>(row.layer)].output;
    double input = 0;
    for (const float x : row.residual) input += static_cast<double>(x) * x;
    std::vector<float> weights(static_cast<std::size_t>(output.columns));
    for (std::size_t head = 0; head < 2; ++head) {
      double squares = 0;
      for (std::int64_t r = 0; r < output.rows; ++r) {
        dequantise_row(output, r, weights.data());
        double sum = 0;
        for (std::size_t i = head * 32; i < (head + 1) * 32; ++i)
          sum += static_cast<double>(weights[i]) * (row.shadow[i] - row.output[i]);
        squares += sum * sum;
      }
      sums_[static_cast<std::size_t>(row.layer)][head] += squares / input;
    }
  }

  const std::vector<std::vector<double>>& sums() const { return sums_; }

 private:
  const Weights& weights_;
  std::vector<std::vector<double>> sums_;
};

TEST(Damage, IsTheMeanSquareOfWhatTheProjectionLosesOverTheInputs) {
  const auto model = tiny();
  const auto text = tokens(96);
  const auto ladder = measure_output_damage(model, {text, 96, 1}, a2sf(), std::vector<std::int64_t>{8, 24}, {}).value();
  const auto plain = std::make_shared<PlainDamage>(model->parts().weights);
  Session session = Session::create(model, {.policy = parse_policy("full").value()}).value();
  ASSERT_TRUE(session.add_shadow(parse_policy("a2sf:budget=24").value(), plain));
  ASSERT_TRUE(session.feed(text));
  for (std::size_t layer = 0; layer < 2; ++layer) {
    for (std::size_t head = 0; head < 2; ++head) {
      const double expected = plain->sums()[layer][head] / 24;
      EXPECT_GT(expected, 0);
      EXPECT_NEAR(ladder.damage[layer][head][1], expected, 1e-4 * expected);
      EXPECT_GT(ladder.damage[layer][head][0], ladder.damage[layer][head][1]);
    }
  }
}

TEST(Damage, OfABudgetOfTheWholeWindowIsNone) {
  const auto text = tokens(64);
  const auto ladder =
      measure_output_damage(tiny(), {text, 64, 1}, a2sf(), std::vector<std::int64_t>{8, 64}, {}).value();
  for (const auto& layer : ladder.damage) {
    for (const auto& head : layer) EXPECT_EQ(head[1], 0);
  }
}

TEST(TuneWindows, SpreadEvenlyOverTheText) {
  const auto text = tokens(100);
  const TuneWindows windows{text, 20, 3};
  EXPECT_EQ(windows.window(0).data(), text.data());
  EXPECT_EQ(windows.window(1).data(), text.data() + 40);
  EXPECT_EQ(windows.window(2).data(), text.data() + 80);
  EXPECT_EQ((TuneWindows{text, 20, 1}.window(0).data()), text.data());
}

TEST(LayerWeights, AreAboutOneWhereDamageSaysWhatItDoes) {
  const auto model = tiny();
  const auto text = tokens(256);
  const auto ladder =
      measure_output_damage(model, {text, 256, 1}, a2sf(), std::vector<std::int64_t>{8, 64}, {}).value();
  const auto weights = measure_layer_weights(model, text, a2sf(), ladder, 0, {}).value();
  ASSERT_EQ(weights.size(), 2U);
  for (const double weight : weights) {
    EXPECT_GT(weight, 0.05);
    EXPECT_LT(weight, 20);
  }
}

TEST(LayerWeights, MultiplyTheDamagesOfTheirLayer) {
  DamageLadder ladder{{4, 8}, 16, {{{2, 1}}, {{4, 3}}}};
  weigh(ladder, std::vector<double>{0.5, 2});
  EXPECT_EQ(ladder.damage, (DamageTable{{{1, 0.5}}, {{8, 6}}}));
}

TEST(Tune, MakesATableOfTheRightShapeAndMeanForEachBudget) {
  const auto text = tokens(600);
  const auto tables =
      tune_budgets(tiny(), text, {.policy = a2sf(), .means = {8, 32, 64}, .longest_window = 256}).value().tables;
  ASSERT_EQ(tables.size(), 3U);
  for (const ShareTable& table : tables) {
    double sum = 0;
    ASSERT_EQ(table.shares.size(), 2U);
    for (const auto& layer : table.shares) {
      ASSERT_EQ(layer.size(), 2U);
      for (const double share : layer) sum += share;
    }
    EXPECT_NEAR(sum / 4, 1, 1e-3) << table.mean;
  }
  EXPECT_TRUE(validate({.tables = tables}));
}

TEST(Tune, BudgetsThatHoldTheirWindowHaveNoTable) {
  const auto text = tokens(300);
  const auto tables =
      tune_budgets(tiny(), text, {.policy = a2sf(), .means = {64, 256, 1024}, .longest_window = 256}).value().tables;
  ASSERT_EQ(tables.size(), 1U);
  EXPECT_EQ(tables[0].mean, 64);
}

// A layer with a sliding window cannot use more than that.
TEST(Tune, LayersWithAWindowGetNoMoreThanIt) {
  const auto text = tokens(512);
  const auto model = tiny({.architecture = "gemma3", .layers = 6, .window = 16});
  const auto tables =
      tune_budgets(model, text, {.policy = a2sf(), .means = {32}, .longest_window = 256}).value().tables;
  for (std::size_t layer = 0; layer < 6; ++layer) {
    if (model->info().windows[layer] == 0) continue;
    for (const double share : tables[0].shares[layer]) EXPECT_LE(share * 32, 18);
  }
}

TEST(Tune, CountsItsWorkAndCanBeStopped) {
  const auto text = tokens(300);
  const TuneOptions options{.policy = a2sf(), .means = {8, 64}, .longest_window = 256};
  std::size_t last = 0, total = 0;
  ASSERT_TRUE(tune_budgets(tiny(), text, options, [&](std::size_t done, std::size_t all) {
    EXPECT_GE(done, last);
    EXPECT_LE(done, all);
    last = done;
    total = all;
    return true;
  }));
  EXPECT_EQ(last, total);
  const auto stopped =
      tune_budgets(tiny(), text, options, [](std::size_t done, std::size_t all) { return done < all / 2; });
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().kind, ErrorKind::cancelled);
}

TEST(Tune, WhatCannotBeMeasuredIsNamed) {
  const auto text = tokens(100);
  EXPECT_THAT(tune_budgets(tiny(), text, {.policy = a2sf(), .longest_window = 256}).error().message,
              HasSubstr("the text has 100 tokens, fewer than one window of 256"));
  EXPECT_THAT(tune_budgets(tiny(), text, {.policy = a2sf(), .means = {2}, .longest_window = 64}).error().message,
              HasSubstr("a mean budget of 2 is too small"));
  EXPECT_THAT(tune_budgets(tiny(), text, {.policy = a2sf(), .means = {64}, .longest_window = 64}).error().message,
              HasSubstr("no mean budget is smaller than a window"));
}

}  // namespace
}  // namespace a2sf
