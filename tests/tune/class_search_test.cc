// Token classes made from a vocabulary, and their factors found on a text.
#include "tune/class_search.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "support/tiny_model.h"
#include "text/tiny_vocabulary.h"
#include "tune/text_cost.h"
#include "tune/vocabulary_classes.h"

namespace a2sf {
namespace {

TEST(VocabularyClasses, AreBySpelling) {
  for (const char* piece : {" ", "\n\n", ",", " (", "...\n", "==", "\t"})
    EXPECT_EQ(kind_of_piece(piece), PieceKind::punctuation) << piece;
  for (const char* piece : {"1", " 1984", "007"}) EXPECT_EQ(kind_of_piece(piece), PieceKind::digits) << piece;
  for (const char* piece : {"The", " Paris", " NATO", "A1"})
    EXPECT_EQ(kind_of_piece(piece), PieceKind::capitalised) << piece;
  for (const char* piece : {" the", " of"}) EXPECT_EQ(kind_of_piece(piece), PieceKind::lower_word) << piece;
  for (const char* piece : {"the", "ing", "1st", " e-mail", "\xc3\xa9", " \xc3\x89", "'s"})
    EXPECT_EQ(kind_of_piece(piece), PieceKind::rest) << piece;
}

TEST(VocabularyClasses, PutEachTokenIntoOne) {
  const test::TemporaryFile file;
  test::write_tiny_vocabulary(file.path());
  const Tokenizer tokenizer = Tokenizer::load(file.path()).value();
  const TokenClasses classes = classes_of_vocabulary(tokenizer, "it is what it is");
  ASSERT_EQ(classes.class_of.size(), static_cast<std::size_t>(tokenizer.vocabulary_size()));
  EXPECT_TRUE(validate(classes));
  const auto name_of = [&](const char* text) {
    return classes.of(tokenizer.encode(text, false, false).value().back()).name;
  };
  EXPECT_EQ(name_of("7"), "digits");
  EXPECT_EQ(name_of("\n"), "punctuation");
  EXPECT_EQ(name_of("Q"), "capitalised");
  EXPECT_EQ(name_of("q"), "rest");
}

class ClassSearchTest : public testing::Test {
 protected:
  ClassSearchTest() {
    const std::string path = write_tiny_model({}, temporary_path("class_search.gguf"));
    model_ = Model::load(path, {.threads = 2, .isa = {}}).value();
    std::filesystem::remove(path);
    for (std::int32_t i = 0; i < 80; ++i) tokens_.push_back(i * i % 128);
    for (int id = 0; id < 128; ++id) start_.class_of.push_back(id < 64 ? 0 : 1);
  }

  double loss_with(const TokenClasses& classes) const {
    PolicySpec spec = search_.policy;
    std::get<Accumulate>(spec.score).classes = std::make_shared<const TokenClasses>(classes);
    return text_cost(model_, windows(), spec, TextCost::log_loss, {}).value();
  }
  TuneWindows windows() const { return {tokens_, 40, 2}; }

  std::shared_ptr<const Model> model_;
  std::vector<std::int32_t> tokens_;
  TokenClasses start_{{{"low"}, {"high"}}, {}};
  ClassSearch search_{.policy = parse_policy("a2sf:budget=8:recent=2").value(), .calls = 25};
};

TEST_F(ClassSearchTest, FindsFactorsThatCostNoMore) {
  std::size_t done = 0, total = 0;
  const auto found = search_classes(model_, windows(), start_, search_, [&](std::size_t of_done, std::size_t of_total) {
                       EXPECT_GE(of_done, done);
                       done = of_done;
                       total = of_total;
                       return true;
                     }).value();
  EXPECT_LT(loss_with(found), loss_with(start_));
  EXPECT_EQ(found.class_of, start_.class_of);
  EXPECT_EQ(found.classes[1].weight, 1) << "only the proportions of weights matter";
  EXPECT_EQ(total, 25U * 80);
  EXPECT_LE(done, total);
}

TEST_F(ClassSearchTest, EndsWhereItIsCancelledOrFails) {
  const auto cancelled =
      search_classes(model_, windows(), start_, search_, [](std::size_t, std::size_t) { return false; });
  ASSERT_FALSE(cancelled);
  EXPECT_EQ(cancelled.error().kind, ErrorKind::cancelled);
  start_.class_of.pop_back();
  EXPECT_FALSE(search_classes(model_, windows(), start_, search_));
}

}  // namespace
}  // namespace a2sf
