// Prompts beside those of lm-evaluation-harness (fixtures/make.py), and what is wrong with files.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <ostream>

#include "eval/choice_scores.h"
#include "eval/tasks/task.h"
#include "support/folder.h"

namespace a2sf {
namespace {

using nlohmann::json;
using testing::HasSubstr;

json harness_prompts() {
  std::ifstream file(std::string(A2SF_TEST_FOLDER) + "/eval/fixtures/prompts.json");
  return json::parse(file);
}

class Prompts : public test::InAFolder {
 protected:
  // The task's file and its solved examples, which are the same items.
  void write_task(const TaskInfo& task, const std::string& lines) const {
    write(std::string(task.file), lines);
    write(std::string(task.shot_file), lines);
  }

  void write_task(const TaskInfo& task, const json& items) const {
    std::string lines;
    for (const json& item : items) lines += item["data"].dump() + "\n";
    write_task(task, lines);
  }

  Result<std::vector<ChoiceItem>> read(const TaskInfo& task, const TaskOptions& options = {}) const {
    return read_items(folder_.string(), task, options);
  }
};

TEST_F(Prompts, AreThoseOfTheHarnessToTheByte) {
  const json prompts = harness_prompts();
  for (const TaskInfo& task : all_tasks()) {
    const json& expected = prompts.at(std::string(task.name));
    write_task(task, expected);
    for (const std::size_t shots : {0U, 1U}) {
      const auto items = read(task, {.shots = shots}).value();
      ASSERT_EQ(items.size(), expected.size());
      for (std::size_t i = 0; i < items.size(); ++i) {
        SCOPED_TRACE(std::string(task.name) + " " + std::to_string(i));
        std::vector<std::string> contexts, continuations;
        for (const Choice& choice : items[i].choices) {
          contexts.push_back(choice.context);
          continuations.push_back(choice.continuation);
        }
        EXPECT_EQ(json(contexts), expected[i][shots == 0 ? "contexts" : "one_shot"]);
        EXPECT_EQ(json(continuations), expected[i]["continuations"]);
        EXPECT_EQ(items[i].gold, expected[i]["gold"].get<std::size_t>());
      }
    }
  }
}

TEST_F(Prompts, TheHarnessTakesTheSameChoices) {
  const json prompts = harness_prompts();
  for (const TaskInfo& task : all_tasks()) {
    const json& expected = prompts.at(std::string(task.name));
    write_task(task, expected);
    const auto items = read(task).value();
    for (std::size_t i = 0; i < items.size(); ++i) {
      SCOPED_TRACE(std::string(task.name) + " " + std::to_string(i));
      std::vector<ChoiceScore> scores;
      for (std::size_t c = 0; c < items[i].choices.size(); ++c)
        scores.push_back({expected[i]["logprobs"][c], 1, items[i].choices[c].codepoints});
      const json& right = expected[i]["right"];
      EXPECT_EQ(best_choice(scores, EvalRules::lm_eval) == items[i].gold, right["acc"] == 1.0);
      EXPECT_EQ(right.contains("acc_norm"), task.has_acc_norm);
      if (!task.has_acc_norm) continue;
      EXPECT_EQ(best_choice_by_length(scores, EvalRules::lm_eval) == items[i].gold, right["acc_norm"] == 1.0);
    }
  }
}

TEST_F(Prompts, OfTheOlderHarnessCopaHasOneBlank) {
  const TaskInfo task = find_task("copa").value();
  write_task(task, harness_prompts().at("copa"));
  EXPECT_EQ(read(task, {.rules = EvalRules::paper}).value()[0].choices[0].continuation, " a cat came.");
}

TEST_F(Prompts, ExamplesOfAnItemFollowFromItsNumber) {
  const TaskInfo task = find_task("piqa").value();
  std::string lines, solved;
  for (const char* goal : {"a", "b", "c"})
    lines += json{{"goal", goal}, {"sol1", "x"}, {"sol2", "y"}, {"label", 0}}.dump() + "\n";
  for (const char* goal : {"p", "q", "r", "s", "t"})
    solved += json{{"goal", goal}, {"sol1", "x"}, {"sol2", "y"}, {"label", 1}}.dump() + "\n";
  write(std::string(task.file), lines);
  write(std::string(task.shot_file), solved);
  const auto items = read(task, {.shots = 2, .limit = 3}).value();
  EXPECT_EQ(items[0].choices[0].context, "Question: p\nAnswer: y\n\nQuestion: q\nAnswer: y\n\nQuestion: a\nAnswer:");
  EXPECT_EQ(items[2].choices[1].context, "Question: t\nAnswer: y\n\nQuestion: p\nAnswer: y\n\nQuestion: c\nAnswer:");
}

TEST_F(Prompts, ForTuningSolvedExamplesAreTheItemsAndNoneIsItsOwn) {
  const TaskInfo task = find_task("piqa").value();
  std::string solved;
  for (const char* goal : {"p", "q", "r"})
    solved += json{{"goal", goal}, {"sol1", "x"}, {"sol2", "y"}, {"label", 1}}.dump() + "\n";
  write(std::string(task.shot_file), solved);
  const auto items = read(task, {.shots = 1, .tuning = true}).value();
  ASSERT_EQ(items.size(), 3U);
  EXPECT_EQ(items[0].choices[0].context, "Question: q\nAnswer: y\n\nQuestion: p\nAnswer:");
  EXPECT_EQ(items[1].choices[0].context, "Question: r\nAnswer: y\n\nQuestion: q\nAnswer:");
  EXPECT_EQ(items[2].choices[0].context, "Question: p\nAnswer: y\n\nQuestion: r\nAnswer:");
}

TEST_F(Prompts, ALimitTakesTheFirstItems) {
  const TaskInfo task = find_task("arc_easy").value();
  write_task(task, harness_prompts().at("arc_easy"));
  EXPECT_EQ(read(task, {.limit = 1}).value().size(), 1U);
  EXPECT_EQ(read(task, {.limit = 100}).value().size(), 2U);
}

TEST_F(Prompts, AMissingOrEmptyFileIsNamed) {
  const TaskInfo task = find_task("mathqa").value();
  EXPECT_THAT(read(task).error().message, HasSubstr("mathqa/test.jsonl"));
  write(std::string(task.file), "\n \n");
  EXPECT_THAT(read(task).error().message, HasSubstr("mathqa/test.jsonl has no lines"));
}

TEST(Tasks, OneThatIsNotThereIsAnErrorThatListsThem) {
  EXPECT_THAT(find_task("boolq").error().message, HasSubstr("no task 'boolq'; there are openbookqa, winogrande"));
}

struct WrongLine {
  const char *task, *line, *mention;
  friend std::ostream& operator<<(std::ostream& out, const WrongLine& wrong) { return out << wrong.line; }
};

class WrongLines : public Prompts, public testing::WithParamInterface<WrongLine> {};

TEST_P(WrongLines, AreNamedByFileAndNumber) {
  const TaskInfo task = find_task(GetParam().task).value();
  write_task(task, "\n" + std::string(GetParam().line) + "\n");
  const auto items = read(task);
  ASSERT_FALSE(items);
  EXPECT_THAT(items.error().message, HasSubstr(std::string(task.file) + ", line 2: "));
  EXPECT_THAT(items.error().message, HasSubstr(GetParam().mention));
}

INSTANTIATE_TEST_SUITE_P(
    Lines, WrongLines,
    testing::Values(
        WrongLine{"piqa", "{", "no JSON object"}, WrongLine{"piqa", "[1]", "no JSON object"},
        WrongLine{"piqa", "{\"goal\": \"\xff\"}", "no JSON object"},
        WrongLine{"piqa", R"({"goal": "a", "sol1": "b", "label": 0})", "\"sol2\""},
        WrongLine{"piqa", R"({"goal": "a", "sol1": "b", "sol2": ["c"], "label": 0})", "\"sol2\""},
        WrongLine{"piqa", R"({"goal": "a", "sol1": "b", "sol2": "c", "label": 2})", "answer '2'"},
        WrongLine{"piqa", R"({"goal": "a", "sol1": "b", "sol2": "c", "label": "x\ny"})", "answer 'x y'"},
        WrongLine{"arc_easy", R"({"question": "a", "choices": {"text": [], "label": []}, "answerKey": "A"})",
                  "\"text\""},
        WrongLine{"arc_easy", R"({"question": "a", "choices": {"text": ["b"], "label": []}, "answerKey": "A"})",
                  "\"label\""},
        WrongLine{"arc_easy", R"({"question": "a", "choices": {"text": ["b", "c"], "label": ["A"]}, "answerKey": "A"})",
                  "as many labels"},
        WrongLine{"arc_easy", R"({"question": "a", "choices": {"text": ["b"], "label": ["A"]}, "answerKey": "B"})",
                  "answer 'B'"},
        WrongLine{"openbookqa", R"({"question_stem": "a", "choices": 1, "answerKey": "B"})", "\"choices\""},
        WrongLine{"winogrande", R"({"sentence": "no gap", "option1": "a", "option2": "b", "answer": "1"})", "no '_'"},
        WrongLine{"winogrande", R"({"sentence": "_", "option1": "a", "option2": "b", "answer": "3"})", "answer '3'"},
        WrongLine{"copa", R"({"premise": "a.", "choice1": "b", "choice2": "c", "question": "why", "label": 0})",
                  "'why'"},
        WrongLine{"copa", R"({"premise": " ", "choice1": "b", "choice2": "c", "question": "cause", "label": 0})",
                  "premise"},
        WrongLine{"mathqa", R"({"Problem": "a", "options": "a ) 1 , b ) 2", "correct": "c"})", "only 1 options"}));

}  // namespace
}  // namespace a2sf
