#include <a2sf/policy.h>
#include <a2sf/token_classes.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/folder.h"

namespace a2sf {
namespace {

using testing::HasSubstr;

constexpr const char* kFile = R"({"format": "a2sf-classes-1", "vocabulary": 6, "made_by": "hand", "classes": [
  {"name": "digits", "memory": 2, "weight": 0.5, "tokens": [4, 1]}, {"name": "names", "tokens": []}, {"name": "rest"}]})";

TEST(TokenClasses, AreReadAndWritten) {
  const TokenClasses classes = parse_token_classes(kFile).value();
  EXPECT_EQ(classes.class_of, (std::vector<std::uint8_t>{2, 0, 2, 2, 0, 2}));
  EXPECT_EQ(classes.of(4).name, "digits");
  EXPECT_EQ(classes.of(4).memory, 2);
  EXPECT_EQ(classes.of(4).weight, .5);
  EXPECT_EQ(classes.of(0).memory, 1);
  const TokenClasses again = parse_token_classes(to_json(classes)).value();
  EXPECT_EQ(again.class_of, classes.class_of);
  EXPECT_EQ(again.of(1).weight, .5);
}

TEST(TokenClasses, KnowTheTextsOfTheirFactors) {
  TokenClasses classes = parse_token_classes(kFile).value();
  EXPECT_TRUE(classes.texts.empty());
  classes.texts = {{"a.txt", text_hash("a")}};
  const TokenClasses again = parse_token_classes(to_json(classes)).value();
  EXPECT_EQ(again.texts.front().name, "a.txt");
  EXPECT_TRUE(has_text(again.texts, text_hash("a")));
  EXPECT_FALSE(has_text(again.texts, text_hash("b")));
}

struct WrongFile {
  const char *from, *to, *names;  // what is replaced in kFile, and what the error has in it
};

class WrongClasses : public testing::TestWithParam<WrongFile> {};

TEST_P(WrongClasses, AreAnErrorOfOneLine) {
  std::string text = kFile;
  const WrongFile& wrong = GetParam();
  text.replace(text.find(wrong.from), std::string(wrong.from).size(), wrong.to);
  const auto parsed = parse_token_classes(text);
  ASSERT_FALSE(parsed);
  EXPECT_THAT(parsed.error().message, HasSubstr(wrong.names));
  EXPECT_EQ(parsed.error().message.find('\n'), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(
    Policy, WrongClasses,
    testing::Values(WrongFile{"{", "", "a2sf-classes-1"}, WrongFile{"classes-1", "classes-2", "a2sf-classes-1"},
                    WrongFile{"6", "0", "vocabulary"}, WrongFile{"6", "1000000000000", "vocabulary"},
                    WrongFile{"6", "-6", "vocabulary"}, WrongFile{"6", "\"6\"", "vocabulary"},
                    WrongFile{"\"classes\": [", "\"classes\": 3, \"x\": [", "\"classes\" should be"},
                    WrongFile{"\"name\": \"rest\"", "", "each class"}, WrongFile{"2,", "0,", "'digits': memory 0"},
                    WrongFile{"2,", "1e300,", "memory"}, WrongFile{"0.5", "-1", "'digits': weight -1"},
                    WrongFile{"0.5", "true", "\"weight\" should be"},
                    WrongFile{"[4, 1]", "[4, 4]", "token 4 is in a list"},
                    WrongFile{"[]", "[1]", "token 1 is in a list"}, WrongFile{"[4, 1]", "[6]", "6 is no token"},
                    WrongFile{"[4, 1]", "[-1]", "-1 is no token"}, WrongFile{"[4, 1]", "[1.5]", "1.5 is no token"},
                    WrongFile{"[]", "7", "'names': \"tokens\" should be"}));

using ClassesOfAPolicy = test::InAFolder;

TEST_F(ClassesOfAPolicy, AreAnOptionThatReadsAFile) {
  write("c.json", kFile);
  const std::string text = "a2sf:classes=" + (folder_ / "c.json").string() + ":budget=64";
  const PolicySpec spec = parse_policy(text).value();
  EXPECT_EQ(to_string(spec), text);
  EXPECT_TRUE(resolve(spec, 0, 1, 0, 0, 0).value().classes);
  EXPECT_FALSE(resolve(parse_policy("a2sf").value(), 0, 1, 0, 0, 0).value().classes);
  EXPECT_TRUE(parse_policy("full" + text.substr(4)).value().keeps_all());
  EXPECT_THAT(resolve(parse_policy(text + ":cold=all").value(), 0, 1, 0, 0, 0).error().message,
              HasSubstr("leave out classes or cold"));
  EXPECT_THAT(parse_policy("a2sf:classes=/none").error().message, HasSubstr("'/none'"));
  write("bad.json", "[]");
  EXPECT_THAT(parse_policy("a2sf:classes=" + (folder_ / "bad.json").string()).error().message, HasSubstr("bad.json'"));
}

TEST_F(ClassesOfAPolicy, AreWhatTheRowTokenClassNeeds) {
  write("c.json", kFile);
  EXPECT_THAT(resolve(parse_policy("token-class").value(), 0, 1, 0, 0, 0).error().message,
              HasSubstr("'token-class' needs token classes"));
  const std::string file = (folder_ / "c.json").string();
  const PolicySpec spec = parse_policy("token-class:classes=" + file).value();
  const HeadRule rule = resolve(spec, 0, 1, 0, 0, 0).value();
  EXPECT_TRUE(rule.classes);
  EXPECT_EQ(rule.alpha, resolve(parse_policy("a2sf").value(), 0, 1, 0, 0, 0).value().alpha);
  EXPECT_EQ(to_string(spec), "token-class:classes=" + file + ":budget=1024");
}

}  // namespace
}  // namespace a2sf
