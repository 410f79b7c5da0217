// Results that are kept, an evaluation that goes on, and what it comes to.
#include "eval/evaluation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "support/folder.h"
#include "support/tiny_model.h"
#include "text/tiny_vocabulary.h"

namespace a2sf {
namespace {

using nlohmann::ordered_json;
using testing::HasSubstr;

ItemResult result_of(std::size_t item, double logprob = -1.0 / 3) {
  return {"piqa", 1, "a2sf:budget=20%", 0.2, "", item, ChoiceOutcome{{{logprob, 2, 5}, {-7, 3, 9}}, 0, 1}};
}

class Results : public test::InAFolder {
 protected:
  std::string path() const { return (folder_ / "items.jsonl").string(); }
  std::string text() const {
    std::ifstream file(path());
    return {std::istreambuf_iterator<char>(file), {}};
  }
  const ordered_json origin_ = {{"version", 1}, {"rules", "lm-eval"}};
};

TEST_F(Results, ReadBackAsTheyWereAdded) {
  ASSERT_TRUE(ItemResults::open(path(), origin_).value().add({result_of(3), result_of(5, -1e-17)}));
  const ItemResults again = ItemResults::open(path(), origin_).value();
  const ItemResult* found = again.find(result_of(5));
  ASSERT_NE(found, nullptr);
  const auto& outcome = std::get<ChoiceOutcome>(found->outcome);
  EXPECT_EQ(outcome.scores[0].logprob, -1e-17);
  EXPECT_EQ(outcome.scores[1].codepoints, 9U);
  EXPECT_EQ(outcome.gold, 1U);
  EXPECT_EQ(found->budget, 0.2);
  EXPECT_EQ(std::get<ChoiceOutcome>(again.find(result_of(3))->outcome).scores[0].logprob, -1.0 / 3);
  EXPECT_EQ(again.find(result_of(4)), nullptr);
}

TEST_F(Results, OfEveryKindReadBack) {
  ItemResult answer = result_of(1), window = result_of(2);
  answer.outcome = AnswerOutcome{"of \"many\" words\n", 5, 0.25};
  window.outcome = WindowOutcome{-12.5, 63};
  ASSERT_TRUE(ItemResults::open(path(), origin_).value().add({answer, window}));
  const ItemResults again = ItemResults::open(path(), origin_).value();
  const auto& read_answer = std::get<AnswerOutcome>(again.find(answer)->outcome);
  EXPECT_EQ(read_answer.answer, "of \"many\" words\n");
  EXPECT_EQ(read_answer.tokens, 5U);
  EXPECT_EQ(read_answer.score, 0.25);
  const auto& read_window = std::get<WindowOutcome>(again.find(window)->outcome);
  EXPECT_EQ(read_window.logprob, -12.5);
  EXPECT_EQ(read_window.tokens, 63U);
}

TEST_F(Results, OfAnotherProfileAreOthers) {
  ItemResults results = ItemResults::open(path(), origin_).value();
  ASSERT_TRUE(results.add({result_of(1)}));
  ItemResult other = result_of(1);
  other.budget_hash = "0123";
  EXPECT_EQ(results.find(other), nullptr);
}

TEST_F(Results, ALineWithoutAnEndIsCutOff) {
  ASSERT_TRUE(ItemResults::open(path(), origin_).value().add({result_of(1), result_of(2)}));
  const std::string whole = text();
  std::filesystem::resize_file(path(), whole.size() - 3);
  ItemResults again = ItemResults::open(path(), origin_).value();
  EXPECT_NE(again.find(result_of(1)), nullptr);
  EXPECT_EQ(again.find(result_of(2)), nullptr);
  ASSERT_TRUE(again.add({result_of(2)}));
  EXPECT_EQ(text(), whole);
}

TEST_F(Results, OfAnotherEvaluationAreRefused) {
  ASSERT_TRUE(ItemResults::open(path(), origin_));
  const auto other = ItemResults::open(path(), {{"version", 1}, {"rules", "paper"}});
  ASSERT_FALSE(other);
  EXPECT_THAT(other.error().message,
              HasSubstr("items.jsonl has results of another evaluation: its rules is \"lm-eval\""));
}

TEST_F(Results, ABrokenLineIsNamed) {
  for (
      const char* broken :
      {"{}", "[]", "nonsense",
       R"({"task":"piqa","shots":0,"spec":"full","budget":null,"budget_hash":"","item":1,"logprobs":[-1],"tokens":[1],"codepoints":[1],"choice":1,"gold":0})",
       R"({"task":"piqa","shots":0,"spec":"full","budget":null,"budget_hash":"","item":-1,"logprobs":[-1],"tokens":[1],"codepoints":[1],"choice":0,"gold":0})",
       R"({"task":"piqa","shots":0,"spec":"full","budget":null,"budget_hash":"","item":1,"logprobs":["x"],"tokens":[1],"codepoints":[1],"choice":0,"gold":0})"}) {
    write("items.jsonl", origin_.dump() + "\n" + broken + "\n");
    const auto results = ItemResults::open(path(), origin_);
    ASSERT_FALSE(results) << broken;
    EXPECT_THAT(results.error().message, HasSubstr("items.jsonl, line 2: this is no result"));
  }
}

class Evaluating : public Results {
 protected:
  void SetUp() override {
    Results::SetUp();
    std::string lines;
    for (int i = 0; i < 40; ++i) {
      lines +=
          ordered_json{
              {"goal", "goal " + std::to_string(i * i)}, {"sol1", "one"}, {"sol2", "another way"}, {"label", i % 2}}
              .dump() +
          "\n";
    }
    write("piqa/validation.jsonl", lines);
    write("piqa/train_first2000.jsonl", lines);
    const test::TemporaryFile vocabulary;
    test::write_tiny_vocabulary(vocabulary.path());
    tokenizer_.emplace(Tokenizer::load(vocabulary.path()).value());
    const std::string model = write_tiny_model({.vocabulary = 262}, temporary_path("evaluation.gguf"));
    model_ = Model::load(model, {.threads = 2, .isa = {}}).value();
    std::filesystem::remove(model);
  }

  EvaluationOptions options() const {
    EvaluationOptions options;
    options.data = folder_.string();
    options.tasks = {find_eval_task("piqa").value()};
    options.shots = {0, 1};
    for (const char* spec : {"full", "a2sf:budget=0.3", "h2o:budget=0.3"}) {
      const auto policy = parse_policy(spec).value();
      options.policies.push_back({policy, policy.keeps_all() ? ordered_json() : ordered_json(0.3), ""});
    }
    return options;
  }

  Result<Evaluation> run(const std::string& file, const ItemProgress& progress = {}) const {
    ItemResults results = ItemResults::open((folder_ / file).string(), origin_).value();
    return evaluate(model_, *tokenizer_, options(), results, progress);
  }

  std::vector<std::string> lines(const std::string& file) const {
    std::vector<std::string> lines;
    std::ifstream stream(folder_ / file);
    for (std::string line; std::getline(stream, line);) lines.push_back(line);
    std::sort(lines.begin(), lines.end());
    return lines;
  }

  std::optional<Tokenizer> tokenizer_;
  std::shared_ptr<const Model> model_;
};

TEST_F(Evaluating, GoesOnWhereItWasInterruptedAndCountsNothingTwice) {
  ASSERT_TRUE(run("whole.jsonl"));
  for (const std::size_t stop : {1U, 30U, 100U, 200U}) {
    const auto stopped = run("parts.jsonl", [&](std::size_t done, std::size_t total) {
      EXPECT_EQ(total, 240U);
      return done < stop;
    });
    ASSERT_FALSE(stopped);
    EXPECT_EQ(stopped.error().kind, ErrorKind::cancelled);
  }
  const auto ended = run("parts.jsonl");
  ASSERT_TRUE(ended);
  EXPECT_EQ(lines("parts.jsonl"), lines("whole.jsonl"));
  EXPECT_EQ(lines("parts.jsonl").size(), 241U);
}

TEST_F(Evaluating, RunsAnswersAndTextsToo) {
  std::string questions;
  for (int i = 0; i < 3; ++i)
    questions +=
        ordered_json{{"question", std::to_string(i)}, {"answer", "so #### " + std::to_string(i)}}.dump() + "\n";
  write("gsm8k/test.jsonl", questions);
  write("wikitext2/wiki.test.raw", std::string(5000, 'x') + std::string(1000, 'y'));
  EvaluationOptions both = options();
  both.tasks = {find_eval_task("gsm8k").value(), find_eval_task("wikitext2").value()};
  both.shots = {0};
  const auto evaluate_both = [&] {
    ItemResults results = ItemResults::open((folder_ / "both.jsonl").string(), origin_).value();
    return evaluate(model_, *tokenizer_, both, results);
  };
  const Evaluation evaluation = evaluate_both().value();
  ASSERT_EQ(evaluation.rows.size(), 6U);
  EXPECT_EQ(evaluation.rows[0].items, 3U);
  EXPECT_NE(evaluation.rows[0].find("score"), nullptr);
  EXPECT_EQ(evaluation.rows[3].items, 2U) << "whole windows of 2048";
  EXPECT_GT(evaluation.rows[3].find("loss")->mean, 0);
  ASSERT_EQ(evaluation.pairs.size(), 2U);
  EXPECT_EQ(evaluation.pairs[1].differences[0].name, "loss");
  EXPECT_FALSE(evaluation.pairs[1].mcnemar_p);
  const auto before = lines("both.jsonl");
  EXPECT_EQ(evaluate_both().value().rows[4].find("loss")->mean, evaluation.rows[4].find("loss")->mean);
  EXPECT_EQ(lines("both.jsonl"), before);
}

TEST_F(Evaluating, HaystacksAreMadeWithoutData) {
  EvaluationOptions made = options();
  made.data.clear();
  made.tasks = {find_eval_task("passkey-1k").value()};
  made.shots = {0};
  made.limit = 2;
  ItemResults results = ItemResults::open((folder_ / "made.jsonl").string(), origin_).value();
  const Evaluation evaluation = evaluate(model_, *tokenizer_, made, results).value();
  ASSERT_EQ(evaluation.rows.size(), 3U);
  EXPECT_EQ(evaluation.rows[0].items, 2U);
  made.tasks = {find_eval_task("needles-8k").value()};
  const auto refused = evaluate(model_, *tokenizer_, made, results);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message, "the task 'needles-8k' needs a context of 8192 tokens, the model's has 4096");
}

TEST_F(Evaluating, ALineOfAnotherKindIsNoResult) {
  ItemResult other{"piqa", 0, "full", nullptr, "", 0, AnswerOutcome{"x", 1, 1}};
  ASSERT_TRUE(ItemResults::open((folder_ / "other.jsonl").string(), origin_).value().add({other}));
  const Evaluation evaluation = run("other.jsonl").value();
  EXPECT_EQ(evaluation.rows[0].measures.size(), 3U);
  EXPECT_EQ(lines("other.jsonl").size(), 242U);
}

TEST_F(Evaluating, ShotsOfATaskWithoutExamplesAreAnError) {
  write("wikitext2/wiki.test.raw", std::string(5000, 'x'));
  EvaluationOptions text = options();
  text.tasks = {find_eval_task("wikitext2").value()};
  ItemResults results = ItemResults::open((folder_ / "text.jsonl").string(), origin_).value();
  const auto refused = evaluate(model_, *tokenizer_, text, results);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("wikitext2' is a text: it can be run with 0 shots only"));
}

TEST_F(Evaluating, ComesToTheMeansOfItsItems) {
  const Evaluation evaluation = run("items.jsonl").value();
  ASSERT_EQ(evaluation.rows.size(), 6U);
  ASSERT_EQ(evaluation.pairs.size(), 2U);
  for (const EvaluationRow& row : evaluation.rows) {
    double right = 0, logprob = 0;
    std::size_t items = 0;
    for (const std::string& line : lines("items.jsonl")) {
      const auto json = ordered_json::parse(line);
      if (!json.contains("spec") || json["spec"] != to_string(options().policies[row.policy].spec) ||
          json["shots"] != row.shots) {
        continue;
      }
      right += json["choice"] == json["gold"];
      logprob += json["logprobs"][json["gold"].get<std::size_t>()].get<double>();
      ++items;
    }
    EXPECT_EQ(items, 40U);
    EXPECT_EQ(row.items, items);
    EXPECT_DOUBLE_EQ(row.find("acc")->mean, right / 40);
    EXPECT_NEAR(row.find("gold_logprob")->mean, logprob / 40, 1e-12);
  }
  const EvaluationPair& pair = evaluation.pairs[0];
  EXPECT_EQ(pair.a, 1U);
  EXPECT_EQ(pair.b, 2U);
  ASSERT_EQ(pair.differences.size(), 3U);
  for (const Measure& each : pair.differences) {
    EXPECT_NEAR(each.value.mean, evaluation.rows[1].find(each.name)->mean - evaluation.rows[2].find(each.name)->mean,
                1e-12)
        << each.name;
  }
  EXPECT_TRUE(pair.mcnemar_p);
}

}  // namespace
}  // namespace a2sf
