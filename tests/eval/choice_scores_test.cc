// Scores of choices beside a plain session that reads context and choice together.
#include "eval/choice_scores.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "kernels/logits.h"
#include "support/tiny_model.h"
#include "text/tiny_vocabulary.h"

namespace a2sf {
namespace {

using testing::HasSubstr;

std::shared_ptr<const Model> tiny(int context = 4096) {
  const std::string path = write_tiny_model({.vocabulary = 262, .context = context}, temporary_path("choices.gguf"));
  auto model = Model::load(path, {.threads = 2, .isa = {}}).value();
  std::filesystem::remove(path);
  return model;
}

Tokenizer bytes_tokenizer() {
  const test::TemporaryFile file;
  test::write_tiny_vocabulary(file.path());
  return Tokenizer::load(file.path()).value();
}

// Of unlike lengths; the last item's contexts differ.
std::vector<ChoiceItem> items() {
  std::vector<ChoiceItem> items;
  for (std::size_t i = 0; i < 12; ++i) {
    const std::string context = "the question " + std::string(3 * i + 1, static_cast<char>('a' + i));
    items.push_back(
        {i, {{context, " yes", 3}, {context, " not at all", 10}, {context, "!", 1}, {context, " no", 2}}, 0});
  }
  items.push_back({12, {{"one context", " rest", 4}, {"another context", " rest", 4}}, 1});
  return items;
}

std::vector<std::vector<ChoiceScore>> score(std::span<const ChoiceItem> items, const std::string& spec,
                                            EvalRules rules = EvalRules::lm_eval) {
  std::vector<std::vector<ChoiceScore>> scores(items.size());
  const auto status = score_items(tiny(), bytes_tokenizer(), items, {parse_policy(spec).value(), KvType::f16, rules},
                                  [&](std::size_t index, std::vector<ChoiceScore> of_item) {
                                    scores[index] = std::move(of_item);
                                    return true;
                                  });
  EXPECT_TRUE(status) << status.error().message;
  return scores;
}

// One sequence of its own, row by row.
double plain_logprob(const ChoiceTokens& tokens, const std::string& spec) {
  const auto length = static_cast<std::int64_t>(tokens.context.size() + tokens.continuation.size());
  const auto policy = parse_policy(spec).value();
  Session session = Session::create(tiny(), {.policy = policy, .sequence_tokens = length}).value();
  EXPECT_TRUE(session.feed(tokens.context, WantLogits::last, policy.evicts_at_prompt_end()));
  double sum = 0;
  for (const Token token : tokens.continuation) {
    sum += session.logits()[static_cast<std::size_t>(token)] - log_sum_exp(session.logits());
    EXPECT_TRUE(session.feed({&token, 1}));
  }
  return sum;
}

class ChoiceScores : public testing::TestWithParam<const char*> {};

TEST_P(ChoiceScores, AreThoseOfASequenceOfItsOwn) {
  const auto all = items();
  for (const EvalRules rules : {EvalRules::lm_eval, EvalRules::paper}) {
    const auto scores = score(all, GetParam(), rules);
    for (std::size_t i = 0; i < all.size(); ++i) {
      for (std::size_t c = 0; c < all[i].choices.size(); ++c) {
        const auto tokens = tokenise(bytes_tokenizer(), all[i].choices[c], rules, 0).value();
        EXPECT_NEAR(scores[i][c].logprob, plain_logprob(tokens, GetParam()),
                    1e-6 * static_cast<double>(tokens.continuation.size()))
            << i << ", " << c;
        EXPECT_EQ(scores[i][c].tokens, tokens.continuation.size());
        EXPECT_EQ(scores[i][c].codepoints, all[i].choices[c].codepoints);
      }
    }
  }
}

TEST_P(ChoiceScores, OfAnItemDependOnNoOther) {
  const auto all = items();
  const auto together = score(all, GetParam());
  for (const std::size_t i : {0U, 7U, 12U}) {
    const auto alone = score({&all[i], 1}, GetParam());
    for (std::size_t c = 0; c < alone[0].size(); ++c) EXPECT_EQ(alone[0][c].logprob, together[i][c].logprob);
  }
}

INSTANTIATE_TEST_SUITE_P(Policies, ChoiceScores,
                         testing::Values("full", "a2sf:budget=0.3", "h2o:budget=12", "a2sf:budget=0.5:block=prompt",
                                         "ideal:budget=0.3", "shared-budget:budget=0.4"));

TEST(ChoiceTokens, BlanksAtTheEndOfAContextAreScoredWithTheChoice) {
  const auto tokens = tokenise(bytes_tokenizer(), {"what  ", " x", 1}, EvalRules::lm_eval, 0).value();
  const auto context = bytes_tokenizer().encode("what", true, false).value();
  EXPECT_EQ(tokens.context, context);
  EXPECT_EQ(tokens.context.size() + tokens.continuation.size(),
            bytes_tokenizer().encode("what   x", true, false).value().size());
}

TEST(ChoiceTokens, ALongContextLosesItsBeginning) {
  const auto whole = tokenise(bytes_tokenizer(), {"abcdefghij", " x", 1}, EvalRules::lm_eval, 0).value();
  const auto cut = tokenise(bytes_tokenizer(), {"abcdefghij", " x", 1}, EvalRules::lm_eval, 8).value();
  EXPECT_EQ(cut.context.size() + cut.continuation.size(), 8U);
  EXPECT_EQ(cut.continuation, whole.continuation);
  EXPECT_EQ(cut.context.back(), whole.context.back());
  EXPECT_THAT(tokenise(bytes_tokenizer(), {"a", " a long choice", 1}, EvalRules::lm_eval, 8).error().message,
              HasSubstr("longer than the model's context of 8"));
}

TEST(ChoiceTokens, AnItemWithoutContextOrChoiceIsNamed) {
  const std::vector<ChoiceItem> empty = {{7, {{"a context", "", 0}}, 0}};
  const auto status = score_items(tiny(), bytes_tokenizer(), empty, {parse_policy("full").value()},
                                  [](std::size_t, const auto&) { return true; });
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message, HasSubstr("item 7, choice 0: the choice is empty"));
}

TEST(ScoreItems, StopsWhereTheCallerWants) {
  const auto all = items();
  std::size_t seen = 0;
  const auto status = score_items(tiny(), bytes_tokenizer(), all, {parse_policy("full").value()},
                                  [&](std::size_t, const auto&) { return ++seen < 3; });
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().kind, ErrorKind::cancelled);
  EXPECT_EQ(seen, 3U);
}

TEST(BestChoice, IsByTheSumTheMeanOrTheCodePoint) {
  const std::vector<ChoiceScore> scores = {{-6, 3, 10}, {-5, 1, 2}, {-7, 7, 4}};
  EXPECT_EQ(best_choice(scores, EvalRules::lm_eval), 1U);
  EXPECT_EQ(best_choice(scores, EvalRules::paper), 2U);
  EXPECT_EQ(best_choice_by_length(scores, EvalRules::lm_eval), 0U);
  EXPECT_EQ(best_choice(std::vector<ChoiceScore>{{-1, 1, 1}, {-1, 1, 1}}, EvalRules::lm_eval), 0U);
}

}  // namespace
}  // namespace a2sf
