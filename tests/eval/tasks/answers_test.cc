// Prompts and scores beside those of the published scripts (fixtures/make_answers.py), and what is wrong with files.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <ostream>

#include "eval/tasks/answer_task.h"
#include "eval/tasks/metrics.h"
#include "support/folder.h"

namespace a2sf {
namespace {

using nlohmann::json;
using testing::HasSubstr;

const AnswerTaskInfo& task_of(std::string_view name) { return *find_answer_task(name); }

class Answers : public test::InAFolder {
 protected:
  void SetUp() override {
    InAFolder::SetUp();
    write("longbench_mini/templates.json", expected_.at("templates").dump());
  }

  // The task's file and its solved examples, which are the same items.
  void write_task(const AnswerTaskInfo& task, const std::string& lines) const {
    write(std::string(task.file), lines);
    if (!task.shot_file.empty()) write(std::string(task.shot_file), lines);
  }

  void write_task(const AnswerTaskInfo& task, const json& items) const {
    std::string lines;
    for (const json& item : items) lines += item["data"].dump() + "\n";
    write_task(task, lines);
  }

  Result<std::vector<AnswerItem>> read(const AnswerTaskInfo& task, const TaskOptions& options = {}) const {
    return read_answer_items(folder_.string(), task, options, {});
  }

  const json expected_ = json::parse(std::ifstream(std::string(A2SF_TEST_FOLDER) + "/eval/fixtures/answers.json"));
};

TEST_F(Answers, PromptsAreThoseOfTheScriptsToTheByte) {
  for (const AnswerTaskInfo& task : answer_tasks()) {
    if (task.file.empty()) continue;
    const json& expected = expected_.at(std::string(task.name));
    write_task(task, expected);
    for (const std::size_t shots : {0U, 1U}) {
      if (shots > 0 && task.shot_file.empty()) continue;
      const auto items = read(task, {.shots = shots}).value();
      ASSERT_EQ(items.size(), expected.size());
      for (std::size_t i = 0; i < items.size(); ++i) {
        EXPECT_EQ(items[i].item, i);
        EXPECT_EQ(json(items[i].prompt), expected[i][shots == 0 ? "prompt" : "one_shot"]) << task.name << " " << i;
      }
    }
  }
}

TEST_F(Answers, ScoresAreThoseOfTheScripts) {
  for (const AnswerTaskInfo& task : answer_tasks()) {
    if (task.file.empty()) continue;
    const json& expected = expected_.at(std::string(task.name));
    write_task(task, expected);
    const auto items = read(task).value();
    for (std::size_t i = 0; i < items.size(); ++i) {
      for (const json& score : expected[i]["scores"]) {
        const std::string answer = score[0];
        EXPECT_NEAR(score_answer(task, items[i], answer), score[1].get<double>(), 1e-9)
            << task.name << " " << i << ": " << answer;
      }
    }
  }
}

TEST_F(Answers, AreRightByOneOfSeveralGolds) {
  const AnswerItem item{0, "", {"red wine", "water"}, {}};
  EXPECT_EQ(score_answer(task_of("hotpotqa"), item, "The water."), 1);
  EXPECT_NEAR(score_answer(task_of("hotpotqa"), item, "a red"), 2.0 / 3, 1e-9);
  EXPECT_EQ(score_answer(task_of("hotpotqa"), {0, "", {}, {}}, "water"), 0);
}

TEST_F(Answers, OfBrokenTextAreScored) {
  EXPECT_EQ(word_f1("caf\xc3", "caf\xef\xbf\xbd"), 1);
  EXPECT_EQ(rouge_l("caf\xc3", "caf\xef\xbf\xbd."), rouge_l("x", "x"));
}

TEST_F(Answers, ExamplesOfAnItemFollowFromItsNumber) {
  const AnswerTaskInfo& task = task_of("gsm8k");
  std::string lines, solved;
  for (const char* question : {"a", "b", "c"})
    lines += json{{"question", question}, {"answer", "#### 1"}}.dump() + "\n";
  for (const char* question : {"p", "q", "r", "s", "t"})
    solved += json{{"question", question}, {"answer", "so\n#### 2"}}.dump() + "\n";
  write(std::string(task.file), lines);
  write(std::string(task.shot_file), solved);
  const auto items = read(task, {.shots = 2}).value();
  EXPECT_EQ(items[0].prompt,
            "Question: p\nAnswer: so\n#### 2\n\nQuestion: q\nAnswer: so\n#### 2\n\nQuestion: a\nAnswer:");
  EXPECT_EQ(items[2].prompt,
            "Question: t\nAnswer: so\n#### 2\n\nQuestion: p\nAnswer: so\n#### 2\n\nQuestion: c\nAnswer:");
  EXPECT_EQ(read(task, {.limit = 2}).value().size(), 2U);
}

TEST_F(Answers, AskForExamplesOnlyOfATaskThatHasSome) {
  EXPECT_THAT(read(task_of("trec"), {.shots = 1}).error().message, HasSubstr("'trec' has no solved examples"));
}

TEST_F(Answers, AMissingFileIsNamed) {
  EXPECT_THAT(read(task_of("gsm8k")).error().message, HasSubstr("gsm8k/test.jsonl"));
  EXPECT_THAT(read(task_of("qasper")).error().message, HasSubstr("longbench_mini/qasper.jsonl"));
  write("gsm8k/test.jsonl", R"({"question": "a", "answer": "#### 1"})");
  EXPECT_THAT(read(task_of("gsm8k"), {.shots = 1}).error().message, HasSubstr("gsm8k/train_first1000.jsonl"));
  write("gsm8k/train_first1000.jsonl", R"({"question": "a", "answer": []})");
  EXPECT_THAT(read(task_of("gsm8k"), {.shots = 1}).error().message, HasSubstr("train_first1000.jsonl, line 1: "));
}

TEST_F(Answers, AMissingTemplateIsNamedByFileAndTask) {
  const auto message = [&] { return read(task_of("lcc")).error().message; };
  for (const char* text : {R"({"samsum": "{input}"})", R"({"lcc": 1})"}) {
    write("longbench_mini/templates.json", text);
    EXPECT_THAT(message(), HasSubstr("longbench_mini/templates.json has no prompt of the task 'lcc'"));
  }
  write("longbench_mini/templates.json", "[\n");
  EXPECT_THAT(message(), HasSubstr("templates.json: this is no JSON object"));
  std::filesystem::remove(folder_ / "longbench_mini/templates.json");
  EXPECT_THAT(message(), HasSubstr("templates.json"));
}

TEST(AnswerTasks, AreFoundByName) {
  for (const AnswerTaskInfo& task : answer_tasks()) EXPECT_EQ(find_answer_task(task.name), &task);
  EXPECT_EQ(find_answer_task("piqa"), nullptr);
}

struct WrongAnswerLine {
  const char *task, *line, *mention;
  friend std::ostream& operator<<(std::ostream& out, const WrongAnswerLine& wrong) { return out << wrong.line; }
};

class WrongAnswerLines : public Answers, public testing::WithParamInterface<WrongAnswerLine> {};

TEST_P(WrongAnswerLines, AreNamedByFileAndNumber) {
  const AnswerTaskInfo& task = task_of(GetParam().task);
  write_task(task, "\n" + std::string(GetParam().line) + "\n");
  const auto items = read(task);
  ASSERT_FALSE(items);
  EXPECT_THAT(items.error().message, HasSubstr(std::string(task.file) + ", line 2: "));
  EXPECT_THAT(items.error().message, HasSubstr(GetParam().mention));
}

INSTANTIATE_TEST_SUITE_P(
    Lines, WrongAnswerLines,
    testing::Values(WrongAnswerLine{"gsm8k", "{", "no JSON object"},
                    WrongAnswerLine{"gsm8k", R"({"question": "a"})", "\"answer\""},
                    WrongAnswerLine{"gsm8k", R"({"question": ["a"], "answer": "#### 1"})", "\"question\""},
                    WrongAnswerLine{"gsm8k", R"({"question": "a", "answer": "it is 1"})", "no number after"},
                    WrongAnswerLine{"qasper", R"({"input": "a", "answers": ["b"]})", "\"context\""},
                    WrongAnswerLine{"lcc", R"({"context": "a", "input": null, "answers": ["b"]})", "\"input\""},
                    WrongAnswerLine{"samsum", R"({"context": "a", "input": "b"})", "\"answers\""},
                    WrongAnswerLine{"samsum", R"({"context": "a", "input": "b", "answers": []})", "\"answers\""},
                    WrongAnswerLine{"samsum", R"({"context": "a", "input": "b", "answers": "c"})", "\"answers\""},
                    WrongAnswerLine{"samsum", R"({"context": "a", "input": "b", "answers": ["c", {}]})", "\"answers\""},
                    WrongAnswerLine{"trec", R"({"context": "a", "input": "b", "answers": ["c"], "all_classes": null})",
                                    "\"all_classes\""},
                    WrongAnswerLine{"trec",
                                    R"({"context": "a", "input": "b", "answers": ["c\nd"], "all_classes": ["c"]})",
                                    "'c d' is none of the classes"},
                    WrongAnswerLine{"passage_retrieval_en", R"({"context": "a", "input": "b", "answers": ["the 3rd"]})",
                                    "'the 3rd' names no paragraph"}));

}  // namespace
}  // namespace a2sf
