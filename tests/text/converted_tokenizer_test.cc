// Vocabularies that tools/convert wrote against the tokenizers library: the same ids on odd texts in many scripts.
// tests/model/fixtures/make_tokenizers.py made both.
#include <a2sf/text.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace a2sf {
namespace {

using Json = nlohmann::json;

const std::filesystem::path kConverted = std::filesystem::path(A2SF_TEST_FOLDER) / "model" / "fixtures";

const Json& expected() {
  static const Json document = Json::parse(std::ifstream(kConverted / "tokenizers.json"));
  return document;
}

std::vector<std::string> kinds() {
  std::vector<std::string> names;
  for (const auto& [name, _] : expected().items()) names.push_back(name);
  return names;
}

class ConvertedTokenizer : public testing::TestWithParam<std::string> {};

TEST_P(ConvertedTokenizer, GivesTheSameIds) {
  const auto tokenizer = Tokenizer::load((kConverted / ("tokenizer-" + GetParam() + ".gguf")).string());
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  for (const Json& each : expected()[GetParam()]) {
    const auto text = each["text"].get<std::string>();
    const auto ids = tokenizer->encode(text, true, true);
    ASSERT_TRUE(ids) << ids.error().message;
    EXPECT_EQ(*ids, each["ids"].get<std::vector<Token>>()) << Json(text);
  }
}

INSTANTIATE_TEST_SUITE_P(, ConvertedTokenizer, testing::ValuesIn(kinds()), [](const auto& each) {
  std::string name = each.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

}  // namespace
}  // namespace a2sf
