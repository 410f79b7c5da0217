#include <a2sf/text.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

#include "text/tiny_vocabulary.h"

namespace a2sf {
namespace {

using ::testing::HasSubstr;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

class SamplerTest : public ::testing::Test {
 protected:
  static const Tokenizer& tokenizer() {
    static const Tokenizer loaded = [] {
      const test::TemporaryFile file;
      test::write_tiny_vocabulary(file.path());
      return Tokenizer::load(file.path()).value();
    }();
    return loaded;
  }
  static Sampler create(const SamplerOptions& options) { return Sampler::create(tokenizer(), options).value(); }

  // Tokens 10, 11, 12 are likely in this order, the rest hardly.
  static std::vector<float> three_choices() {
    std::vector<float> logits(static_cast<std::size_t>(tokenizer().vocabulary_size()), -5.0F);
    logits[10] = 2.0F;
    logits[11] = 1.9F;
    logits[12] = 1.8F;
    return logits;
  }
  static std::vector<Token> draw(const SamplerOptions& options, const std::vector<float>& logits, int count = 200) {
    Sampler sampler = create(options);
    std::vector<Token> tokens;
    for (int i = 0; i < count; ++i) tokens.push_back(sampler.sample(logits));
    return tokens;
  }
  static std::set<Token> drawn(const SamplerOptions& options, const std::vector<float>& logits) {
    const auto tokens = draw(options, logits);
    return {tokens.begin(), tokens.end()};
  }
};

TEST_F(SamplerTest, GreedyTakesTheArgmax) {
  EXPECT_EQ(drawn({}, three_choices()), (std::set<Token>{10}));
  std::vector<float> last = three_choices();
  last.back() = 100;
  EXPECT_EQ(drawn({}, last), (std::set<Token>{static_cast<Token>(last.size() - 1)}));
  EXPECT_EQ(drawn({.temperature = 1e-30F}, three_choices()), (std::set<Token>{10}));
}

TEST_F(SamplerTest, GreedyTakesTheFirstOfEquals) { EXPECT_EQ(create({}).sample(std::vector<float>(262, 1.5F)), 0); }

TEST_F(SamplerTest, SameSeedSameTokens) {
  for (const std::uint32_t seed : {0U, 1U, 0xFFFFFFFFU}) {
    const SamplerOptions options{.temperature = 1, .seed = seed};
    EXPECT_EQ(draw(options, three_choices()), draw(options, three_choices())) << seed;
  }
  EXPECT_NE(draw({.temperature = 1, .seed = 1}, three_choices()), draw({.temperature = 1, .seed = 2}, three_choices()));
}

TEST_F(SamplerTest, EachFilterLimitsTheChoice) {
  const SamplerOptions open{.temperature = 1, .top_k = 0, .top_p = 1, .min_p = 0};
  EXPECT_GT(drawn(open, three_choices()).size(), 3U);
  SamplerOptions top_k = open;
  top_k.top_k = 2;
  EXPECT_EQ(drawn(top_k, three_choices()), (std::set<Token>{10, 11}));
  SamplerOptions top_p = open;
  top_p.top_p = 0.2F;
  EXPECT_EQ(drawn(top_p, three_choices()), (std::set<Token>{10}));
  SamplerOptions min_p = open;
  min_p.min_p = 0.5F;
  EXPECT_EQ(drawn(min_p, three_choices()), (std::set<Token>{10, 11, 12}));
}

TEST_F(SamplerTest, LowTemperatureApproachesTheArgmax) {
  EXPECT_EQ(drawn({.temperature = 0.005F}, three_choices()), (std::set<Token>{10}));
}

TEST_F(SamplerTest, RepeatPenaltyChangesTheChoice) {
  Sampler sampler = create({.repeat_penalty = 1.5F});
  EXPECT_EQ(sampler.sample(three_choices()), 10);
  EXPECT_EQ(sampler.sample(three_choices()), 11);
  EXPECT_EQ(sampler.sample(three_choices()), 12);
  EXPECT_EQ(sampler.sample(three_choices()), 10);
}

TEST_F(SamplerTest, RepeatPenaltyKnowsThePrompt) {
  Sampler sampler = create({.repeat_penalty = 1.5F});
  sampler.accept(10);
  EXPECT_EQ(sampler.sample(three_choices()), 11);
}

TEST_F(SamplerTest, RepeatPenaltyForgetsAfter64Tokens) {
  Sampler sampler = create({.repeat_penalty = 1.5F});
  sampler.accept(10);
  for (int i = 0; i < 63; ++i) sampler.accept(200);
  EXPECT_EQ(sampler.sample(three_choices()), 11);  // token 10 is the oldest of the 64
  Sampler later = create({.repeat_penalty = 1.5F});
  later.accept(10);
  for (int i = 0; i < 64; ++i) later.accept(200);
  EXPECT_EQ(later.sample(three_choices()), 10);
}

TEST_F(SamplerTest, ABiasMovesAToken) {
  Sampler favours = create({.logit_bias = {{12, 100}}}), bans = create({.logit_bias = {{10, -kInfinity}, {11, -100}}});
  EXPECT_EQ(favours.sample(three_choices()), 12);
  EXPECT_EQ(bans.sample(three_choices()), 12);
  EXPECT_EQ(drawn({.temperature = 5, .logit_bias = {{10, -kInfinity}}}, three_choices()), (std::set<Token>{11, 12}));
}

TEST_F(SamplerTest, PresenceAndFrequencyPenaltiesCountWhatWasDrawnAndNotThePrompt) {
  const std::vector<float> logits = three_choices();
  const float gap = logits[10] - logits[11];
  ASSERT_GT(gap, 0);
  ASSERT_LT(gap, 2);
  Sampler once = create({.presence_penalty = 2});
  once.accept(10);
  EXPECT_EQ(once.sample(logits), 10);
  EXPECT_EQ(once.sample(logits), 11);
  Sampler often = create({.frequency_penalty = gap / 1.5F});
  for (int i = 0; i < 2; ++i) EXPECT_EQ(often.sample(logits), 10);
  EXPECT_EQ(often.sample(logits), 11);
}

TEST_F(SamplerTest, LogitsThatAreNoNumbersAreSurvived) {
  std::vector<float> logits = three_choices();
  logits[0] = kNan;
  logits[5] = -kInfinity;
  for (const int top_k : {0, 40, 200}) {
    const SamplerOptions options{.temperature = 1, .top_k = top_k};
    EXPECT_EQ(drawn(options, logits), (std::set<Token>{10, 11, 12})) << top_k;
    for (const float value : {kNan, kInfinity, -kInfinity}) {
      for (const Token token : drawn(options, std::vector<float>(262, value))) {
        EXPECT_GE(token, 0);
        EXPECT_LT(token, 262);
      }
    }
  }
  EXPECT_EQ(create({}).sample(logits), 10);
  EXPECT_EQ(create({}).sample({}), -1);
}

TEST_F(SamplerTest, OptionsOutOfRangeNameOptionValueAndRange) {
  const auto message = [&](const SamplerOptions& options) {
    const auto sampler = Sampler::create(tokenizer(), options);
    return sampler ? std::string("no error") : sampler.error().message;
  };
  EXPECT_EQ(message({.temperature = -0.5F}), "temperature is -0.5; allowed is 0 (greedy) or a finite number above 0");
  EXPECT_EQ(message({.temperature = kNan}), "temperature is nan; allowed is 0 (greedy) or a finite number above 0");
  EXPECT_THAT(message({.temperature = kInfinity}), HasSubstr("temperature is inf"));
  EXPECT_EQ(message({.top_k = -1}), "top_k is -1; allowed is 0 (off) or a positive number");
  for (const float p : {0.0F, -0.25F, 1.5F, kNan}) EXPECT_THAT(message({.top_p = p}), HasSubstr("top_p is")) << p;
  for (const float p : {-0.25F, 1.5F, kNan}) EXPECT_THAT(message({.min_p = p}), HasSubstr("min_p is")) << p;
  for (const float p : {0.0F, -1.0F, kNan, kInfinity}) {
    EXPECT_THAT(message({.repeat_penalty = p}), HasSubstr("repeat_penalty is")) << p;
  }
  for (const float p : {-2.5F, 2.5F, kNan}) {
    EXPECT_THAT(message({.presence_penalty = p}), HasSubstr("presence_penalty is")) << p;
    EXPECT_THAT(message({.frequency_penalty = p}), HasSubstr("frequency_penalty is")) << p;
    EXPECT_THAT(message({.logit_bias = {{1, p * 100}}}), HasSubstr("logit_bias is")) << p;
  }
  for (const Token token : {-1, 262}) EXPECT_THAT(message({.logit_bias = {{token, 1}}}), HasSubstr("outside"));
  EXPECT_EQ(message({.temperature = 1, .top_k = 0, .top_p = 1, .min_p = 1}), "no error");
}

}  // namespace
}  // namespace a2sf
