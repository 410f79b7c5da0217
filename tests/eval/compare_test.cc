#include "eval/compare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <memory>
#include <random>
#include <vector>

#include "eval/perplexity.h"
#include "support/tiny_model.h"

namespace a2sf {
namespace {

using testing::HasSubstr;
using Tokens = std::vector<std::int32_t>;
using Probabilities = std::vector<double>;

constexpr int kVocabulary = 128;  // of the tiny model

std::shared_ptr<const Model> compare_model() {
  const std::string path = write_tiny_model({}, temporary_path("compare.gguf"));
  auto model = Model::load(path).value();
  std::filesystem::remove(path);
  return model;
}

Tokens text(std::size_t count) {
  std::mt19937 random(7);
  Tokens tokens(count);
  for (auto& token : tokens) token = static_cast<std::int32_t>(random() % kVocabulary);
  return tokens;
}

// What the model says of the next token after each token but the last, fed one by one.
std::vector<Probabilities> predictions(const std::shared_ptr<const Model>& model, const PolicySpec& spec,
                                       const Tokens& tokens) {
  auto session = Session::create(model, {.policy = spec}).value();
  std::vector<Probabilities> rows;
  for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
    EXPECT_TRUE(session.feed({&tokens[i], 1}));
    Probabilities& row = rows.emplace_back();
    double sum = 0;
    for (const float logit : session.logits()) sum += row.emplace_back(std::exp(static_cast<double>(logit)));
    for (double& probability : row) probability /= sum;
  }
  return rows;
}

struct Expected {
  double kl_to_full = 0, kl_from_full = 0, perplexity = 0;
};

// By the definitions, in plain loops over probabilities.
Expected expected_of(const std::vector<Probabilities>& full, const std::vector<Probabilities>& other,
                     const Tokens& tokens) {
  Expected sums;
  double loss = 0;
  for (std::size_t row = 0; row < full.size(); ++row) {
    for (std::size_t i = 0; i < kVocabulary; ++i) {
      const double p = full[row][i], q = other[row][i];
      sums.kl_to_full += p * std::log(p / q);
      sums.kl_from_full += q * std::log(q / p);
    }
    loss -= std::log(other[row][static_cast<std::size_t>(tokens[row + 1])]);
  }
  const auto rows = static_cast<double>(full.size());
  return {sums.kl_to_full / rows, sums.kl_from_full / rows, std::exp(loss / rows)};
}

TEST(Compare, KlIsTheMeanOfTheFullCacheFromThePolicy) {
  const auto model = compare_model();
  const Tokens tokens = text(40);
  const PolicySpec spec = parse_policy("local:budget=3").value(), full = parse_policy("full").value();
  const Expected expected = expected_of(predictions(model, full, tokens), predictions(model, spec, tokens), tokens);
  ASSERT_GT(std::abs(expected.kl_to_full - expected.kl_from_full), 0.01 * expected.kl_to_full);

  const auto report = compare(model, tokens, {&spec, 1}, {.decode = 8});
  ASSERT_TRUE(report) << report.error().message;
  ASSERT_EQ(report->rows.size(), 2U);
  EXPECT_EQ(report->tokens_scored, 39U);
  EXPECT_EQ(report->rows[0].kl_to_full, 0);
  EXPECT_NEAR(report->rows[1].kl_to_full, expected.kl_to_full, 1e-4 * expected.kl_to_full);
  EXPECT_NEAR(report->rows[1].perplexity, expected.perplexity, 1e-4 * expected.perplexity);
}

// A tokenizer may know more tokens than the embedding has rows; such a token would be looked up past a row of logits.
TEST(Compare, NamesATokenThatTheModelHasNoRowFor) {
  Tokens tokens = text(10);
  tokens.back() = kVocabulary;
  const PolicySpec spec = parse_policy("local:budget=3").value();
  bool started = false;
  const auto report =
      compare(compare_model(), tokens, {&spec, 1}, {}, [&](std::size_t, std::size_t) { return started = true; });
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().kind, ErrorKind::bad_input);
  EXPECT_THAT(report.error().message, HasSubstr("token 128, number 10 of the text"));
  EXPECT_THAT(report.error().message, HasSubstr("vocabulary of 128"));
  EXPECT_FALSE(started);
}

TEST(Perplexity, NamesATokenThatTheModelHasNoRowFor) {
  Tokens tokens = text(10);
  tokens[9] = -1;
  const auto report = perplexity(compare_model(), tokens, {.policy = parse_policy("full").value(), .window = 5});
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().kind, ErrorKind::bad_input);
  EXPECT_THAT(report.error().message, HasSubstr("token -1, number 10 of the text"));
  EXPECT_THAT(report.error().message, HasSubstr("vocabulary of 128"));
}

}  // namespace
}  // namespace a2sf
