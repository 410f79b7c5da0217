// Facts in a haystack: where they are, how much filler is around them, and that items never change.
#include "eval/tasks/haystack.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <span>

#include "core/fnv.h"
#include "eval/tasks/filler.h"

namespace a2sf {
namespace {

using testing::Each;
using testing::HasSubstr;
using testing::Lt;

// A tokenizer whose tokens are words.
Result<std::size_t> count_words(std::string_view text) {
  return static_cast<std::size_t>(std::count(text.begin(), text.end(), ' ')) + 1;
}
// One whose tokens are bytes.
Result<std::size_t> count_bytes(std::string_view text) { return text.size(); }

std::vector<AnswerItem> items_of(std::string_view name, std::size_t limit = 0,
                                 const TokenCounter& count = count_words) {
  return read_answer_items("", *find_answer_task(name), {.limit = limit}, count).value();
}

// By the definition: the fractional part of a multiple of the golden ratio.
double depth_of(std::size_t item) { return std::fmod(static_cast<double>(item + 1) * (std::sqrt(5.0) - 1) / 2, 1); }

std::size_t occurrences(std::string_view text, std::string_view part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++count;
  return count;
}

// The names in "The pass key of NAME is 12345.", in their order.
std::vector<std::string> names_in(std::string_view text) {
  constexpr std::string_view kBefore = "The pass key of ";
  std::vector<std::string> names;
  for (std::size_t at = text.find(kBefore); at != text.npos; at = text.find(kBefore, at)) {
    at += kBefore.size();
    const std::string_view rest = text.substr(at);
    const std::size_t end = rest.find(" is ");
    if (end != rest.npos) names.emplace_back(rest.substr(0, end));
  }
  return names;
}

class Haystacks : public testing::TestWithParam<std::string_view> {
 protected:
  const AnswerTaskInfo& task_ = *find_answer_task(GetParam());
  const std::vector<AnswerItem> items_ = items_of(GetParam());
};

TEST_P(Haystacks, HoldTheKeyOnceAtItsDepth) {
  ASSERT_EQ(items_.size(), kHaystackItems);
  for (const AnswerItem& item : items_) {
    ASSERT_EQ(item.golds.size(), 1U);
    EXPECT_EQ(item.golds[0].size(), 5U);
    EXPECT_EQ(occurrences(item.prompt, item.golds[0]), 1U) << item.prompt;
    const double depth = static_cast<double>(item.prompt.find(item.golds[0])) / static_cast<double>(item.prompt.size());
    EXPECT_NEAR(depth, depth_of(item.item), 0.04) << item.item;
  }
}

TEST_P(Haystacks, FillTheLengthAndNeverExceedIt) {
  for (const auto& [count, longest_sentence] :
       {std::pair<TokenCounter, std::size_t>{count_words, 20}, {count_bytes, 120}}) {
    for (const AnswerItem& item : items_of(GetParam(), 5, count)) {
      const std::size_t tokens = count(item.prompt).value() + task_.most_tokens;
      EXPECT_LE(tokens, task_.haystack.tokens);
      EXPECT_GT(tokens + longest_sentence, task_.haystack.tokens);
    }
  }
}

TEST_P(Haystacks, OfALimitAreTheFirst) {
  const auto first = items_of(GetParam(), 3);
  ASSERT_EQ(first.size(), 3U);
  for (const AnswerItem& item : first) {
    EXPECT_EQ(item.prompt, items_[item.item].prompt);
    EXPECT_EQ(item.golds, items_[item.item].golds);
  }
  EXPECT_EQ(items_of(GetParam(), 1000).size(), kHaystackItems);
}

TEST_P(Haystacks, DifferFromItemToItem) {
  std::set<std::string> keys, prompts;
  for (const AnswerItem& item : items_) {
    keys.insert(item.golds[0]);
    prompts.insert(item.prompt.substr(item.prompt.size() / 2));
  }
  EXPECT_GE(keys.size(), kHaystackItems - 1);
  EXPECT_EQ(prompts.size(), kHaystackItems);
}

INSTANTIATE_TEST_SUITE_P(Tasks, Haystacks, testing::Values("passkey-1k", "passkey-4k", "needles-2k", "needles-8k"));

TEST(Haystack, DepthsOfAnyNumberOfFirstItemsAreSpread) {
  for (std::size_t count = 1; count <= kHaystackItems; ++count) {
    std::vector<double> depths = {0, 1};
    for (std::size_t item = 0; item < count; ++item) depths.push_back(depth_of(item));
    std::sort(depths.begin(), depths.end());
    std::adjacent_difference(depths.begin(), depths.end(), depths.begin());
    EXPECT_THAT(depths, Each(Lt(2.0 / static_cast<double>(count)))) << count;
  }
}

TEST(Haystack, NeedlesHaveNamesOfTheirOwnAndOneIsAskedFor) {
  for (const AnswerItem& item : items_of("needles-4k")) {
    std::vector<std::string> names = names_in(item.prompt);
    ASSERT_EQ(names.size(), 8U);
    const std::string& gold = item.golds[0];
    const auto asked = std::find_if(names.begin(), names.end(), [&](const std::string& name) {
      return item.prompt.find("The pass key of " + name + " is " + gold + ".") != std::string::npos;
    });
    ASSERT_NE(asked, names.end());
    EXPECT_TRUE(item.prompt.ends_with(" What is the pass key of " + *asked + "? The pass key of " + *asked + " is"));
    EXPECT_EQ(std::set(names.begin(), names.end()).size(), 8U);
  }
}

// Whoever changes the items raises kResultsVersion in apps/a2sf/eval.cc: earlier results are of other items.
TEST(Haystack, ItemsAreTheSameOnEveryMachine) {
  std::string all;
  for (const char* name : {"passkey-1k", "needles-2k"}) {
    for (const AnswerItem& item : items_of(name)) all += item.prompt + item.golds[0];
  }
  EXPECT_EQ(fnv1a(std::as_bytes(std::span(all))), 2547614791555289593U);
}

TEST(Haystack, WhatCannotBeCountedIsAnError) {
  const TokenCounter broken = [](std::string_view) { return fail(ErrorKind::bad_input, "no tokens"); };
  const auto items = read_answer_items("", *find_answer_task("passkey-1k"), {}, broken);
  ASSERT_FALSE(items);
  EXPECT_EQ(items.error().message, "no tokens");
  const auto shots = read_answer_items("", *find_answer_task("passkey-1k"), {.shots = 1}, count_words);
  EXPECT_THAT(shots.error().message, HasSubstr("'passkey-1k' has no solved examples"));
}

TEST(Haystack, AnAnswerIsRightWhenItsFirstNumberIsTheKey) {
  const AnswerTaskInfo& task = *find_answer_task("passkey-1k");
  const AnswerItem item{0, "", {"59906"}, {}};
  for (const char* right : {" 59906", "59906.", " \"59906\". Not 12345.", " the number 59906"})
    EXPECT_EQ(score_answer(task, item, right), 1) << right;
  for (const char* wrong : {"", " 5990", " 599061", " 12345, or 59906", " 59 906"})
    EXPECT_EQ(score_answer(task, item, wrong), 0) << wrong;
}

TEST(Filler, SentencesHaveNoDigitsAndAreVaried) {
  RandomBits random(7);
  std::set<std::string> sentences;
  for (int i = 0; i < 2000; ++i) {
    const std::string sentence = filler_sentence(random);
    EXPECT_EQ(sentence.find_first_of("0123456789$"), std::string::npos) << sentence;
    EXPECT_TRUE(sentence.ends_with("."));
    EXPECT_GE(count_words(sentence).value(), kFewestFillerWords) << sentence;
    sentences.insert(sentence);
  }
  EXPECT_GT(sentences.size(), 1800U);
}

}  // namespace
}  // namespace a2sf
