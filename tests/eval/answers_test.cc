// Generated answers beside a plain loop over one sequence, and prompts that are too long.
#include "eval/answers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <numeric>

#include "engine/generate.h"
#include "support/tiny_model.h"
#include "text/tiny_vocabulary.h"

namespace a2sf {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class GeneratedAnswers : public testing::Test {
 protected:
  GeneratedAnswers() {
    for (std::size_t i = 0; i < 11; ++i)
      items_.push_back({i, "a question " + std::string(5 * i, static_cast<char>('a' + i)), {"x"}, {}});
  }

  static std::shared_ptr<const Model> tiny(int context) {
    const std::string path = write_tiny_model({.vocabulary = 262, .context = context}, temporary_path("answers.gguf"));
    auto model = Model::load(path, {.threads = 2, .isa = {}}).value();
    std::filesystem::remove(path);
    return model;
  }

  static Tokenizer bytes_tokenizer() {
    const test::TemporaryFile file;
    test::write_tiny_vocabulary(file.path());
    return Tokenizer::load(file.path()).value();
  }

  std::vector<Answer> answer(const AnswerTaskInfo& task, const std::string& spec, int context = 4096) const {
    std::vector<Answer> answers(items_.size());
    const auto status = answer_items(tiny(context), bytes_tokenizer(), task, items_,
                                     {parse_policy(spec).value(), KvType::f16}, [&](std::size_t index, Answer each) {
                                       answers[index] = std::move(each);
                                       return true;
                                     });
    EXPECT_TRUE(status) << status.error().message;
    return answers;
  }

  std::vector<AnswerItem> items_;
};

constexpr AnswerTaskInfo kTask{"invented", "", "", 12, "", true};

TEST_F(GeneratedAnswers, AreThoseOfEachItemAlone) {
  const auto model = tiny(4096);
  const Tokenizer tokenizer = bytes_tokenizer();
  const auto answers = answer(kTask, "a2sf:budget=0.4");
  for (const AnswerItem& item : items_) {
    const auto prompt = tokenizer.encode(item.prompt, true, false).value();
    Session session = Session::create(model, {.policy = parse_policy("a2sf:budget=0.4").value(),
                                              .sequence_tokens = static_cast<std::int64_t>(prompt.size()) + 12})
                          .value();
    ASSERT_TRUE(session.feed(prompt));
    Sampler sampler = Sampler::create(tokenizer, {}).value();
    GenerateOptions options;
    options.tokens = 12;
    const Generation plain =
        generate(session, tokenizer, sampler, options, [](std::string_view) { return true; }).value();
    EXPECT_EQ(answers[item.item].text, plain.text) << item.item;
    EXPECT_EQ(answers[item.item].tokens, plain.tokens.size());
  }
}

TEST_F(GeneratedAnswers, EndAtTheStopAndBeginWithNoneThatIsALine) {
  AnswerTaskInfo lines = kTask;
  lines.stop = "\n";
  lines.most_tokens = 60;
  for (const Answer& each : answer(lines, "full")) {
    EXPECT_EQ(each.text.find('\n'), std::string::npos);
    EXPECT_GT(each.tokens, 0U);
  }
}

TEST_F(GeneratedAnswers, PromptAndAnswerFitTheContext) {
  for (const Answer& each : answer(kTask, "full", 32)) EXPECT_LE(each.tokens, 12U);
  const auto status =
      answer_items(tiny(13), bytes_tokenizer(), kTask, items_, {parse_policy("full").value(), KvType::f16}, {});
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message, HasSubstr("an answer of 12 tokens leaves no room"));
}

TEST_F(GeneratedAnswers, CanBeStopped) {
  std::size_t seen = 0;
  const auto status =
      answer_items(tiny(4096), bytes_tokenizer(), kTask, items_, {parse_policy("full").value(), KvType::f16},
                   [&](std::size_t, const Answer&) { return ++seen < 2; });
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().kind, ErrorKind::cancelled);
  EXPECT_EQ(seen, 2U);
}

TEST(CutPrompt, LosesItsMiddleOrItsBeginning) {
  const std::vector<Token> prompt = {0, 1, 2, 3, 4, 5, 6, 7, 8};
  EXPECT_THAT(cut_prompt(prompt, 5, true, true), ElementsAre(0, 1, 6, 7, 8));
  EXPECT_THAT(cut_prompt(prompt, 4, false, false), ElementsAre(5, 6, 7, 8));
  EXPECT_THAT(cut_prompt(prompt, 4, false, true), ElementsAre(0, 6, 7, 8)) << "BOS stays";
  EXPECT_EQ(cut_prompt(prompt, 9, true, true), prompt);
}

}  // namespace
}  // namespace a2sf
