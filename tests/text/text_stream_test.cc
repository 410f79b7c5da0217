#include <a2sf/text.h>
#include <gtest/gtest.h>

#include <random>

namespace a2sf {
namespace {

const std::string kReplacement = "\xEF\xBF\xBD";

std::string stream(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
  TextStream text(stops);
  std::string shown;
  for (const std::string& piece : pieces) shown += text.push(piece);
  return shown + text.flush();
}

TEST(FindInvalidUtf8, FollowsTheUnicodeStandard) {
  EXPECT_EQ(find_invalid_utf8(""), std::nullopt);
  EXPECT_EQ(find_invalid_utf8("aé€😀\xF4\x8F\xBF\xBF\xED\x9F\xBF"), std::nullopt);
  EXPECT_EQ(find_invalid_utf8(std::string_view("a\0b", 3)), std::nullopt);
  EXPECT_EQ(find_invalid_utf8("ab\x80"), 2U);
  EXPECT_EQ(find_invalid_utf8("\xC0\x80"), 0U);          // overlong
  EXPECT_EQ(find_invalid_utf8("\xE0\x80\x80"), 0U);      // overlong
  EXPECT_EQ(find_invalid_utf8("\xF0\x80\x80\x80"), 0U);  // overlong
  EXPECT_EQ(find_invalid_utf8("x\xED\xA0\x80"), 1U);     // surrogate
  EXPECT_EQ(find_invalid_utf8("\xF4\x90\x80\x80"), 0U);  // above U+10FFFF
  EXPECT_EQ(find_invalid_utf8("\xF5"), 0U);
  EXPECT_EQ(find_invalid_utf8("é\xE2\x82"), 2U);  // cut off
}

TEST(TextStream, CharacterSplitOverPiecesIsHeldBack) {
  TextStream text;
  EXPECT_EQ(text.push("a\xF0\x9F"), "a");
  EXPECT_EQ(text.push("\x98"), "");
  EXPECT_EQ(text.push("\x80!"), "😀!");
  EXPECT_EQ(text.flush(), "");
}

TEST(TextStream, BrokenUtf8BecomesReplacementCharacters) {
  EXPECT_EQ(stream({}, {"a\xFF", "b"}), "a" + kReplacement + "b");
  EXPECT_EQ(stream({}, {"\xE2\x82", "x"}), kReplacement + "x");
  EXPECT_EQ(stream({}, {"\xF0\x9F\x98"}), kReplacement);
  EXPECT_EQ(stream({}, {"\xED\xA0\x80"}), kReplacement + kReplacement + kReplacement);
}

TEST(TextStream, APartialCharacterIsDroppedAndWhatIsBeforeItStays) {
  TextStream text({"<end>"});
  EXPECT_EQ(text.push("a<en\xF0\x9F"), "a<en");
  text.drop_partial_character();
  EXPECT_EQ(text.flush(), "");
  EXPECT_EQ(text.push("b<en"), "b");
  text.drop_partial_character();
  EXPECT_EQ(text.flush(), "<en");
}

TEST(TextStream, StopStringSplitOverPiecesIsFound) {
  TextStream text({"</end>"});
  EXPECT_EQ(text.push("one <"), "one ");
  EXPECT_EQ(text.push("/e"), "");
  EXPECT_FALSE(text.stopped());
  EXPECT_EQ(text.push("nd> two"), "");
  EXPECT_TRUE(text.stopped());
  EXPECT_EQ(text.push("three"), "");
  EXPECT_EQ(text.flush(), "");
}

TEST(TextStream, WhatOnlyLookedLikeAStopStringIsShown) {
  TextStream text({"</end>"});
  EXPECT_EQ(text.push("a</"), "a");
  EXPECT_EQ(text.push("b>"), "</b>");
  EXPECT_EQ(text.push("<"), "");
  EXPECT_EQ(text.flush(), "<");
  EXPECT_FALSE(text.stopped());
}

TEST(TextStream, OverlappingBeginningsAreNotMissed) {
  EXPECT_EQ(stream({"aab"}, {"a", "a", "a", "b", "c"}), "a");
  EXPECT_EQ(stream({"\n\n"}, {"x\n", "y\n", "\nz"}), "x\ny");
}

TEST(TextStream, FirstCompleteStopStringWins) {
  EXPECT_EQ(stream({"two", "one"}, {"zero one two"}), "zero ");
  EXPECT_EQ(stream({"abcd", "bc"}, {"xabcd"}), "xa");
  EXPECT_EQ(stream({"c", "abc"}, {"xabc"}), "x");
}

TEST(TextStream, EmptyStopStringsAreIgnored) { EXPECT_EQ(stream({"", "!"}, {"hi! there"}), "hi"); }

TEST(TextStream, StopStringOfSeveralByteCharacters) {
  EXPECT_EQ(stream({"。"}, {"你好", "\xE3\x80", "\x82再见"}), "你好");
  EXPECT_EQ(stream({"。"}, {"你\xE3\x80", "\x81好"}), "你、好");
}

TEST(TextStream, CuttingDoesNotChangeTheText) {
  const std::string alphabet[] = {"a", "b", "é", "😀", "\xFF", "\xE2\x82", "\x80", "<"};
  const std::vector<std::vector<std::string>> stop_lists = {
      {}, {"ab"}, {"<a", "a<b", "é<"}, {"aaa", "aab", "b😀"}, {"😀"}};
  std::mt19937 random(20);
  for (int round = 0; round < 5000; ++round) {
    std::string whole;
    for (int i = 0; i < 12; ++i) whole += alphabet[random() % std::size(alphabet)];
    const auto& stops = stop_lists[random() % stop_lists.size()];
    std::vector<std::string> pieces;
    for (std::size_t at = 0; at < whole.size();) {
      const std::size_t length = std::min<std::size_t>(random() % 4, whole.size() - at);
      pieces.push_back(whole.substr(at, length));
      at += length;
    }
    const std::string text = stream(stops, pieces);
    ASSERT_EQ(text, stream(stops, {whole})) << "round " << round;
    ASSERT_EQ(find_invalid_utf8(text), std::nullopt) << "round " << round;
  }
}

}  // namespace
}  // namespace a2sf
