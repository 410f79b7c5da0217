// Memories by task.
#include "tune/task_tuning.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "support/tiny_model.h"
#include "text/tiny_vocabulary.h"

namespace a2sf {
namespace {

class TaskTuningTest : public testing::Test {
 protected:
  TaskTuningTest() {
    const std::string path = write_tiny_model({.vocabulary = 262}, temporary_path("task_tuning.gguf"));
    model_ = Model::load(path, {.threads = 2, .isa = {}}).value();
    std::filesystem::remove(path);
    for (std::size_t i = 0; i < 6; ++i) {
      const std::string context = "the question " + std::string(20 + i, static_cast<char>('a' + i));
      tuning_.items.push_back({i, {{context, " yes", 3}, {context, " not at all", 10}}, i % 2});
    }
    tuning_.specs = {parse_policy("a2sf:budget=0.2").value(), parse_policy("a2sf:budget=0.4").value()};
    tuning_.search = {MemoryGroups::per_layer, 8};
  }

  static Tokenizer bytes() {
    const test::TemporaryFile file;
    test::write_tiny_vocabulary(file.path());
    return Tokenizer::load(file.path()).value();
  }

  // Nats per token of the right choices.
  double loss_with(const std::vector<ShareTable>& tables) const {
    double loss = 0;
    for (PolicySpec spec : tuning_.specs) {
      EXPECT_TRUE(share_by(spec, std::make_shared<const Profile>(Profile{.tables = tables})));
      EXPECT_TRUE(score_items(model_, bytes(), tuning_.items, {.policy = spec},
                              [&](std::size_t index, const std::vector<ChoiceScore>& scores) {
                                const ChoiceScore& right = scores[tuning_.items[index].gold];
                                loss -= right.logprob / static_cast<double>(right.tokens);
                                return true;
                              }));
    }
    return loss;
  }

  std::shared_ptr<const Model> model_;
  TaskTuning tuning_{.items = {}, .specs = {}, .shares = nullptr, .search = {}};
};

TEST_F(TaskTuningTest, TheRightChoicesAreNoLessProbableThanByTheStandardMemory) {
  const auto tables = tune_memories(model_, bytes(), tuning_).value();
  ASSERT_EQ(tables.size(), 1U);
  EXPECT_EQ(tables[0].shares, (std::vector<std::vector<double>>{{1, 1}, {1, 1}}));
  auto standard = tables;
  standard[0].memories = {{1.5, 1.5}, {1.5, 1.5}};
  EXPECT_LE(loss_with(tables), loss_with(standard));
}

TEST_F(TaskTuningTest, SharesOfAProfileStay) {
  tuning_.shares = std::make_shared<const Profile>(parse_profile(R"({"tables": [{"mean": 8, "shares": [[2, 1], [1, 1]]},
                                   {"mean": 64, "shares": [[1, 2], [3, 1]], "alphas": [[0, 0], [1, 1]]}]})")
                                                       .value());
  const auto tables = tune_memories(model_, bytes(), tuning_).value();
  ASSERT_EQ(tables.size(), 2U);
  EXPECT_EQ(tables[1].shares, tuning_.shares->tables[1].shares);
  EXPECT_EQ(tables[0].memories, tables[1].memories);
  EXPECT_TRUE(validate({.tables = tables})) << "memories take the place of alphas";
}

TEST_F(TaskTuningTest, CountsItsItemsAndCanBeStopped) {
  std::size_t total = 0;
  const auto stopped = tune_memories(model_, bytes(), tuning_, [&](std::size_t done, std::size_t all) {
    total = all;
    return done < 20;
  });
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().kind, ErrorKind::cancelled);
  EXPECT_EQ(total, 8U * 2 * 6);
}

TEST_F(TaskTuningTest, NothingToTuneOnIsAnError) {
  tuning_.items.clear();
  EXPECT_FALSE(tune_memories(model_, bytes(), tuning_));
}

}  // namespace
}  // namespace a2sf
