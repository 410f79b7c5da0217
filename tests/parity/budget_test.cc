// Perplexity under small budgets against an independent simulation: masks over full attention, weights dequantised to
// float32. Quantised activations move the full cache by up to half a percent, and flip near ties among victims.
#include <a2sf/a2sf.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cctype>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <ostream>
#include <string>

#include "eval/perplexity.h"
#include "support/real_model.h"

namespace a2sf {
namespace {

constexpr const char* kText = "/usr/share/common-licenses/GPL-3";
constexpr std::size_t kWindow = 2048;
constexpr std::size_t kTextTokens = 7639;          // of the text the figures are for
constexpr std::uint64_t kModelBytes = 98'362'432;  // SmolLM2-135M-Instruct Q4_1

struct Figure {
  const char* policy;
  double perplexity;
  double tolerance;  // relative
};

std::ostream& operator<<(std::ostream& out, const Figure& figure) { return out << figure.policy; }

class Budgets : public testing::TestWithParam<Figure> {};

TEST_P(Budgets, PerplexityAgreesWithSimulation) {
  const auto path = test::real_model_path();
  if (!path) GTEST_SKIP() << "no model: tools/fetch smollm2-135m";
  std::ifstream file(kText, std::ios::binary);
  if (!file) GTEST_SKIP() << "no " << kText;
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const auto model = Model::load(*path);
  ASSERT_TRUE(model) << model.error().message;
  if ((*model)->info().file_bytes != kModelBytes) GTEST_SKIP() << "the figures are for another model than " << *path;
  const auto tokenizer = Tokenizer::load(*path);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  auto tokens = tokenizer->encode(text, false, false);
  ASSERT_TRUE(tokens) << tokens.error().message;
  if (tokens->size() != kTextTokens) GTEST_SKIP() << "the figures are for another text than " << kText;
  tokens->resize(kWindow);

  const Figure figure = GetParam();
  const auto spec = parse_policy(figure.policy);
  ASSERT_TRUE(spec) << spec.error().message;
  PerplexityOptions options;
  options.policy = *spec;
  options.window = kWindow;
  options.score = ScoredPart::all;
  const auto report = perplexity(*model, *tokens, options);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->windows, 1U);
  EXPECT_EQ(report->tokens_scored, kWindow - 1);

  const double difference = report->perplexity / figure.perplexity - 1;
  const std::string summary =
      fmt::format("{:.3f}, simulated {:.3f}: {:+.2f} %", report->perplexity, figure.perplexity, 100 * difference);
  fmt::print("{}: {} ({:.0f} tokens/s)\n", figure.policy, summary, report->tokens_per_s);
  RecordProperty("perplexity", summary);
  EXPECT_LE(std::abs(difference), figure.tolerance) << summary;
}

std::string name_of_case(const testing::TestParamInfo<Figure>& info) {
  std::string name;
  for (const char* c = info.param.policy; *c != '\0'; ++c)
    name += std::isalnum(static_cast<unsigned char>(*c)) != 0 ? *c : '_';
  return name;
}

INSTANTIATE_TEST_SUITE_P(GPL, Budgets,
                         testing::Values(Figure{"full", 19.716, 0.008},                       //
                                         Figure{"local:budget=128", 43.220, 0.03},            //
                                         Figure{"streaming:budget=128", 23.143, 0.03},        //
                                         Figure{"h2o:budget=128", 23.944, 0.03},              //
                                         Figure{"tova:budget=128", 24.674, 0.03},             //
                                         Figure{"a2sf:alpha=0.9:budget=128", 22.863, 0.03},   //
                                         Figure{"a2sf:alpha=0.99:budget=128", 22.352, 0.03},  //
                                         Figure{"a2sf:budget=128", 22.582, 0.03},             //
                                         Figure{"h2o:budget=256", 21.191, 0.03},              //
                                         Figure{"tova:budget=256", 21.896, 0.03},             //
                                         Figure{"a2sf:budget=256", 21.058, 0.03}),
                         name_of_case);

}  // namespace
}  // namespace a2sf
