#include "engine/generate.h"
#include "kernels/logits.h"

#include <a2sf/batch.h>
#include <a2sf/model.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "support/tiny_model.h"
#include "text/tiny_vocabulary.h"
#include "text/utf8.h"

namespace a2sf {
namespace {

class Generate : public testing::Test {
 protected:
  Generate() {
    TinyModel sizes;
    sizes.vocabulary = static_cast<int>(test::tiny_tokens().size());
    const std::string path = write_tiny_model(sizes, temporary_path("generate.gguf"));
    model_ = Model::load(path, {.threads = 1, .device = "cpu", .repack = true, .isa = ""}).value();
    std::filesystem::remove(path);
  }

  Session session() const { return Session::create(model_, {.policy = {}}).value(); }
  Sampler sampler(std::uint32_t seed) const {
    return Sampler::create(tokenizer_, {.temperature = 1, .top_k = 0, .seed = seed}).value();
  }

  // Byte tokens for the most part: the text rarely ends at the end of a character. Interrupted after `tokens` of them.
  Generation generate_until(std::size_t tokens, std::uint32_t seed, const GenerateOptions& options) {
    Session session = this->session();
    Sampler sampler = this->sampler(seed);
    EXPECT_TRUE(session.feed(kPrompt));
    std::size_t asked = 0;
    std::string shown;
    const auto show = [&](std::string_view text) {
      shown += text;
      return ++asked < tokens;
    };
    auto generation = generate(session, tokenizer_, sampler, options, show);
    EXPECT_TRUE(generation);
    EXPECT_EQ(session.position(), static_cast<std::int64_t>(kPrompt.size() + generation->fed));
    EXPECT_EQ(shown, generation->text);
    return *generation;
  }
  Generation generate_alone(std::uint32_t seed, const GenerateOptions& options) {
    return generate_until(kNever, seed, options);
  }

  // Rows of logits that leave only one token.
  std::vector<float> only(Token token) const {
    std::vector<float> logits(test::tiny_tokens().size(), -1000);
    logits[static_cast<std::size_t>(token)] = 1000;
    return logits;
  }
  static constexpr Token byte(unsigned char value) { return 3 + value; }

  static Tokenizer tokenizer() {
    const test::TemporaryFile file;
    test::write_tiny_vocabulary(file.path());
    return Tokenizer::load(file.path()).value();
  }

  static constexpr std::size_t kNever = 1 << 20;
  static constexpr Token kEnd = 2, kHi = 260;
  const std::vector<Token> kPrompt = {1, kHi};
  const Tokenizer tokenizer_ = tokenizer();
  std::shared_ptr<const Model> model_;
};

TEST_F(Generate, AnInterruptionKeepsWhatThereIsInWholeCharacters) {
  bool cut_a_character = false;
  for (std::uint32_t seed = 0; seed < 40; ++seed) {
    const Generation generation = generate_until(12, seed, {.tokens = 1000, .stop = {}});
    if (generation.reason == StopReason::end_of_generation) continue;
    EXPECT_EQ(generation.reason, StopReason::interrupted);
    EXPECT_EQ(generation.tokens.size(), 12U);
    EXPECT_EQ(generation.fed, 11U);
    std::string bytes;
    for (const Token token : generation.tokens) bytes += tokenizer_.piece(token);
    const std::size_t cut = text::incomplete_tail_length(bytes);
    EXPECT_EQ(generation.text, text::replace_invalid(bytes.substr(0, bytes.size() - cut)));
    cut_a_character |= cut > 0;
  }
  EXPECT_TRUE(cut_a_character);
}

TEST_F(Generate, AnInterruptionAtTheLastTokenIsOne) {
  EXPECT_EQ(generate_until(5, 1, {.tokens = 5, .stop = {}}).reason, StopReason::interrupted);
  EXPECT_EQ(generate_until(6, 1, {.tokens = 5, .stop = {}}).reason, StopReason::length);
}

TEST_F(Generate, NoTokensAreDoneAtOnce) {
  const Generation generation = generate_alone(1, {.tokens = 0, .stop = {}});
  EXPECT_EQ(generation.reason, StopReason::length);
  EXPECT_TRUE(generation.tokens.empty());
  EXPECT_TRUE(generation.text.empty());
}

TEST_F(Generate, LogProbabilitiesAreOfTheModelsDistributionAndChangeNoToken) {
  const GenerateOptions plain{.tokens = 20, .stop = {}};
  GenerateOptions recording = plain;
  recording.logprobs = test::tiny_tokens().size();
  const Generation expected = generate_alone(3, plain), generation = generate_alone(3, recording);
  EXPECT_TRUE(expected.choices.empty());
  EXPECT_EQ(generation.tokens, expected.tokens);
  ASSERT_EQ(generation.choices.size(), generation.tokens.size());
  Session session = this->session();
  ASSERT_TRUE(session.feed(kPrompt));
  for (std::size_t i = 0; i < generation.tokens.size(); ++i) {
    const TokenChoice& choice = generation.choices[i];
    const double expected_logprob =
        static_cast<double>(session.logits()[static_cast<std::size_t>(generation.tokens[i])]) -
        log_sum_exp(session.logits());
    EXPECT_EQ(choice.logprob, expected_logprob);
    double sum = 0;
    for (const TokenProbability& other : choice.top) sum += std::exp(other.log_probability);
    EXPECT_NEAR(sum, 1, 1e-5);
    ASSERT_TRUE(session.feed({&generation.tokens[i], 1}));
  }
}

TEST_F(Generate, AnEndThatTheModelGivesIsNoTokenAndOutlastsAnInterruption) {
  Sampler sampler = this->sampler(1);
  Generator generator(tokenizer_, sampler, {.tokens = 9, .stop = {"hi there"}, .logprobs = 0});
  EXPECT_EQ(generator.next(only(kHi)), kHi);
  EXPECT_EQ(generator.take_text(), " ");  // the rest may begin the stop string
  EXPECT_FALSE(generator.done());
  EXPECT_EQ(generator.next(only(kEnd)), std::nullopt);
  EXPECT_TRUE(generator.done());
  generator.interrupt();
  EXPECT_EQ(generator.take_text(), "");
  generator.finish();
  EXPECT_EQ(generator.take_text(), "hi");
  EXPECT_EQ(generator.generation().reason, StopReason::end_of_generation);
  EXPECT_THAT(generator.generation().tokens, testing::ElementsAre(kHi));
  EXPECT_EQ(generator.generation().choices.size(), 1U);
}

TEST_F(Generate, AStopStringOverSeveralTokensIsNotShownAndOutlastsAnInterruption) {
  Sampler sampler = this->sampler(1);
  Generator generator(tokenizer_, sampler, {.tokens = 9, .stop = {"x.y"}});
  for (const char c : {'a', 'x', '.'}) EXPECT_EQ(generator.next(only(byte(c))), byte(c));
  EXPECT_EQ(generator.take_text(), "a");
  EXPECT_EQ(generator.next(only(byte('y'))), std::nullopt);
  generator.interrupt();
  generator.finish();
  EXPECT_EQ(generator.take_text(), "");
  EXPECT_EQ(generator.generation().reason, StopReason::stop_string);
  EXPECT_EQ(generator.generation().text, "a");
  EXPECT_EQ(generator.generation().tokens.size(), 4U);
}

TEST_F(Generate, ItsLengthEndsItAndWhatWasHeldBackIsText) {
  Sampler sampler = this->sampler(1);
  Generator generator(tokenizer_, sampler, {.tokens = 2, .stop = {"x.y"}});
  EXPECT_EQ(generator.next(only(byte('x'))), byte('x'));
  EXPECT_EQ(generator.next(only(byte('.'))), std::nullopt);
  EXPECT_TRUE(generator.done());
  generator.finish();
  EXPECT_EQ(generator.take_text(), "x.");
  EXPECT_EQ(generator.generation().reason, StopReason::length);
}

// What a scheduler does: one step feeds the last token of every sequence that goes on.
TEST_F(Generate, SequencesOfOneBatchSayWhatEachAloneWould) {
  const std::array options = {GenerateOptions{.tokens = 30, .stop = {}, .logprobs = 2},
                              GenerateOptions{.tokens = 17, .stop = {"\n"}, .logprobs = 2}};
  std::array sessions = {session(), session()};
  std::array samplers = {sampler(1), sampler(2)};
  std::array generators = {Generator(tokenizer_, samplers[0], options[0]),
                           Generator(tokenizer_, samplers[1], options[1])};
  std::array fed = {kPrompt, kPrompt};
  std::array<std::string, 2> shown;
  Batch batch;
  while (true) {
    std::vector<Feed> feeds;
    std::vector<std::size_t> sequences;
    for (std::size_t i = 0; i < 2; ++i) {
      if (generators[i].done()) continue;
      feeds.push_back({&sessions[i], fed[i]});
      sequences.push_back(i);
    }
    if (feeds.empty()) break;
    ASSERT_TRUE(batch.run(feeds));
    for (std::size_t row = 0; row < feeds.size(); ++row) {
      const std::size_t i = sequences[row];
      ASSERT_TRUE(batch.status(row));
      if (const auto token = generators[i].next(batch.logits(row))) fed[i] = {*token};
      if (generators[i].done()) generators[i].finish();
      shown[i] += generators[i].take_text();
    }
  }
  for (std::size_t i = 0; i < 2; ++i) {
    const Generation alone = generate_alone(static_cast<std::uint32_t>(i + 1), options[i]);
    const Generation& together = generators[i].generation();
    EXPECT_EQ(together.tokens, alone.tokens);
    EXPECT_EQ(together.reason, alone.reason);
    EXPECT_EQ(shown[i], alone.text);
    ASSERT_EQ(together.choices.size(), alone.choices.size());
    for (std::size_t t = 0; t < alone.choices.size(); ++t)
      EXPECT_EQ(together.choices[t].logprob, alone.choices[t].logprob);
  }
}

}  // namespace
}  // namespace a2sf
