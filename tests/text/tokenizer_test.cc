#include <a2sf/text.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "support/real_model.h"
#include "text/tiny_vocabulary.h"

namespace a2sf {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string decode(const Tokenizer& tokenizer, const std::vector<Token>& tokens, bool special = false) {
  std::string text;
  for (const Token token : tokens) text += tokenizer.piece(token, special);
  return text;
}

Error error_of_file(const std::string& path) {
  const auto tokenizer = Tokenizer::load(path);
  if (tokenizer) return {ErrorKind::bad_input, "no error"};
  EXPECT_THAT(tokenizer.error().message, HasSubstr(path));
  EXPECT_EQ(tokenizer.error().message.find('\n'), std::string::npos) << tokenizer.error().message;
  return tokenizer.error();
}

Error error_of_change(const std::function<void(gguf_context*)>& change) {
  const test::TemporaryFile file;
  test::write_tiny_vocabulary(file.path(), change);
  return error_of_file(file.path());
}

Result<Tokenizer> load_tiny(const std::function<void(gguf_context*)>& change = {}) {
  const test::TemporaryFile file;
  test::write_tiny_vocabulary(file.path(), change);
  return Tokenizer::load(file.path());
}

TEST(TokenizerFile, MissingFileIsAnIoErrorThatNamesIt) {
  const Error error = error_of_file("/nonexistent/model.gguf");
  EXPECT_EQ(error.kind, ErrorKind::io);
  EXPECT_THAT(error.message, HasSubstr("No such file or directory"));
}

TEST(TokenizerFile, DirectoryIsRefused) {
  EXPECT_THAT(error_of_file(std::filesystem::temp_directory_path().string()).message, HasSubstr("is a directory"));
}

TEST(TokenizerFile, DeviceIsRefused) { EXPECT_THAT(error_of_file("/dev/zero").message, HasSubstr("no regular file")); }

TEST(TokenizerFile, NameWithNulByteIsRefused) {
  EXPECT_FALSE(Tokenizer::load(std::string("/tmp\0/x", 7)).has_value());
  EXPECT_FALSE(Tokenizer::load("").has_value());
}

TEST(TokenizerFile, OtherFormatsAreNoGguf) {
  for (const std::string_view content : {"", "GG", "GGUF", "hello, this is a text file and no model at all"}) {
    const test::TemporaryFile file(content);
    const Error error = error_of_file(file.path());
    EXPECT_EQ(error.kind, ErrorKind::bad_input);
    EXPECT_THAT(error.message, HasSubstr("not a GGUF file"));
  }
}

TEST(TokenizerFile, EveryTruncationIsAnError) {
  const test::TemporaryFile whole;
  test::write_tiny_vocabulary(whole.path());
  std::ifstream in(whole.path(), std::ios::binary);
  const std::string content((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  for (std::size_t size = 0; size + 64 < content.size(); size += 97) {
    const test::TemporaryFile file(std::string_view(content).substr(0, size));
    EXPECT_NE(error_of_file(file.path()).message, "no error") << size;
  }
}

TEST(TokenizerFile, FileWithoutVocabularySaysSo) {
  for (const char* model : {"none", "no_vocab"}) {
    const Error error = error_of_change([&](gguf_context* g) { gguf_set_val_str(g, "tokenizer.ggml.model", model); });
    EXPECT_EQ(error.kind, ErrorKind::bad_input);
    EXPECT_THAT(error.message, HasSubstr("has no vocabulary"));
  }
  const auto remove = [](gguf_context* g) { gguf_remove_key(g, "tokenizer.ggml.model"); };
  EXPECT_THAT(error_of_change(remove).message, HasSubstr("no vocabulary"));
}

TEST(TokenizerFile, MistypedKeysAreErrors) {
  for (const char* key :
       {"general.architecture", "tokenizer.ggml.model", "tokenizer.ggml.tokens", "tokenizer.ggml.scores",
        "tokenizer.ggml.token_type", "general.name", "tokenizer.ggml.add_bos_token"}) {
    EXPECT_NE(error_of_change([&](gguf_context* g) { gguf_set_val_u64(g, key, 7); }).message, "no error") << key;
  }
}

TEST(TokenizerFile, UnknownTokenizerIsUnsupported) {
  const Error error = error_of_change([](gguf_context* g) { gguf_set_val_str(g, "tokenizer.ggml.model", "bert"); });
  EXPECT_EQ(error.kind, ErrorKind::unsupported);
  EXPECT_THAT(error.message, HasSubstr("'bert'"));
}

TEST(TokenizerFile, ReasonOfLibllamaIsPassedOn) {
  const Error error = error_of_change([](gguf_context* g) {
    gguf_set_val_str(g, "tokenizer.ggml.model", "gpt2");
    test::set_strings(g, "tokenizer.ggml.merges", {"a b"});
    gguf_set_val_str(g, "tokenizer.ggml.pre", "from-the-future");
  });
  EXPECT_THAT(error.message, HasSubstr("unknown pre-tokenizer type: 'from-the-future'"));
}

TEST(TokenizerFile, SameTokenTwiceIsAnError) {
  const Error error = error_of_change([](gguf_context* g) {
    auto tokens = test::tiny_tokens();
    tokens.back() = tokens.front();
    test::set_strings(g, "tokenizer.ggml.tokens", tokens);
  });
  EXPECT_THAT(error.message, HasSubstr("token 261 is there twice"));
}

TEST(TokenizerFile, DamagedByteTokenIsAnError) {
  const Error error = error_of_change([](gguf_context* g) {
    auto tokens = test::tiny_tokens();
    tokens[3] = "x";
    test::set_strings(g, "tokenizer.ggml.tokens", tokens);
  });
  EXPECT_THAT(error.message, HasSubstr("libllama cannot read the vocabulary"));
}

TEST(TokenizerTiny, ArchitectureUnknownToLibllamaLoads) {
  const auto tokenizer = load_tiny();
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ(tokenizer->vocabulary_size(), 262);
  EXPECT_TRUE(tokenizer->is_end_of_generation(2));
  EXPECT_TRUE(tokenizer->is_end_of_generation(261));
  EXPECT_FALSE(tokenizer->is_end_of_generation(1));
  EXPECT_FALSE(tokenizer->is_end_of_generation(-1));
}

TEST(TokenizerTiny, BeginningIsAddedOnRequestAndTheEndNever) {
  const auto tokenizer = load_tiny();
  ASSERT_TRUE(tokenizer);
  EXPECT_TRUE(tokenizer->adds_bos());
  EXPECT_EQ(tokenizer->bos(), Token{1});
  EXPECT_EQ(tokenizer->eos(), Token{2});
  EXPECT_EQ(tokenizer->encode("", true, false).value(), std::vector<Token>{1});
  EXPECT_THAT(tokenizer->encode("A", true, false).value(), ElementsAre(1, 259, 3 + 'A'));
  EXPECT_THAT(tokenizer->encode("A", false, false).value(), ElementsAre(259, 3 + 'A'));

  const auto without = load_tiny([](gguf_context* g) { gguf_set_val_bool(g, "tokenizer.ggml.add_bos_token", false); });
  ASSERT_TRUE(without);
  EXPECT_FALSE(without->adds_bos());
  EXPECT_EQ(without->bos(), Token{1});
  EXPECT_TRUE(without->encode("", true, false)->empty());
}

TEST(TokenizerTiny, BytePiecesMayEndInsideACharacter) {
  const auto tokenizer = load_tiny();
  ASSERT_TRUE(tokenizer);
  const auto tokens = tokenizer->encode("é", false, false);
  ASSERT_THAT(tokens.value(), ElementsAre(259, 3 + 0xC3, 3 + 0xA9));
  EXPECT_EQ(tokenizer->piece(3 + 0xC3), "\xC3");
  EXPECT_EQ(decode(*tokenizer, *tokens), " é");
}

TEST(TokenizerTiny, TokensOutsideTheVocabularyHaveNoText) {
  const auto tokenizer = load_tiny();
  ASSERT_TRUE(tokenizer);
  for (const Token token : {-1, -2147483647 - 1, 262, 2147483647}) EXPECT_EQ(tokenizer->piece(token, true), "");
}

TEST(TokenizerTiny, MissingByteTokenIsAnErrorOfEncode) {
  const auto tokenizer = load_tiny([](gguf_context* g) {
    const std::vector<std::int32_t> types(3, 1);
    const std::vector<float> scores(3, 0.0F);
    test::set_strings(g, "tokenizer.ggml.tokens", {"<unk>", "<s>", "</s>"});
    gguf_set_arr_data(g, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, types.data(), types.size());
    gguf_set_arr_data(g, "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, scores.data(), scores.size());
  });
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  const auto tokens = tokenizer->encode("x", false, false);
  ASSERT_FALSE(tokens);
  EXPECT_THAT(tokens.error().message, HasSubstr("cannot be tokenized"));
}

TEST(TokenizerTiny, InvalidUtf8NamesItsOffset) {
  const auto tokenizer = load_tiny();
  ASSERT_TRUE(tokenizer);
  const auto tokens = tokenizer->encode("hé\xFFllo", false, false);
  ASSERT_FALSE(tokens);
  EXPECT_EQ(tokens.error().kind, ErrorKind::bad_input);
  EXPECT_EQ(tokens.error().message, "the text is not valid UTF-8: byte 0xFF at offset 3");
}

TEST(TokenizerTiny, NulByteInTextSurvives) {
  const auto tokenizer = load_tiny();
  ASSERT_TRUE(tokenizer);
  EXPECT_THAT(tokenizer->encode(std::string_view("a\0b", 3), false, false).value(),
              ElementsAre(259, 3 + 'a', 3, 3 + 'b'));
}

// libllama's std::regex would overflow the stack at 26000 characters.
TEST(TokenizerTiny, LongWordsDoNotOverflowTheStack) {
  for (const char* pre : {"default", "falcon", "deepseek-llm", "tekken", "gpt-4o"}) {
    const auto tokenizer = load_tiny([&](gguf_context* g) {
      gguf_set_val_str(g, "tokenizer.ggml.model", "gpt2");
      gguf_set_val_str(g, "tokenizer.ggml.pre", pre);
      test::set_strings(g, "tokenizer.ggml.merges", {"a b"});
      auto tokens = test::tiny_tokens();
      tokens[260] = "a";
      test::set_strings(g, "tokenizer.ggml.tokens", tokens);
    });
    ASSERT_TRUE(tokenizer) << tokenizer.error().message;
    for (const std::string word : {"a", "a ", "\xE4\xBD\xA0", " ", "!", "aA"}) {
      std::string text;
      while (text.size() < 100000) text += word;
      EXPECT_TRUE(tokenizer->encode(text, true, true)) << pre << word;
    }
    EXPECT_EQ(tokenizer->encode(std::string(100000, 'a'), false, false)->size(), 100000U) << pre;
    const auto too_long = tokenizer->encode(std::string(5000000, 'a'), false, false);
    ASSERT_FALSE(too_long);
    EXPECT_THAT(too_long.error().message, HasSubstr("at most 4194304"));
  }
}

TEST(TokenizerTiny, WithoutAChatTemplateThereIsAnErrorAndNoChatml) {
  const auto tokenizer = load_tiny();
  ASSERT_TRUE(tokenizer);
  EXPECT_FALSE(tokenizer->has_chat_template());
  const auto prompt = tokenizer->apply_chat_template(std::vector<ChatMessage>{{"user", "hi"}}, true);
  ASSERT_FALSE(prompt);
  EXPECT_THAT(prompt.error().message, HasSubstr("no chat template"));
}

TEST(TokenizerTiny, UnknownChatTemplateIsUnsupported) {
  const auto tokenizer =
      load_tiny([](gguf_context* g) { gguf_set_val_str(g, "tokenizer.chat_template", "{{ novel }}"); });
  ASSERT_TRUE(tokenizer);
  EXPECT_EQ(tokenizer->chat_template(), "{{ novel }}");
  const auto prompt = tokenizer->apply_chat_template(std::vector<ChatMessage>{{"user", "hi"}}, true);
  ASSERT_FALSE(prompt);
  EXPECT_EQ(prompt.error().kind, ErrorKind::unsupported);
}

TEST(TokenizerTiny, ChatTemplateKeepsEveryMessageWhole) {
  const auto tokenizer =
      load_tiny([](gguf_context* g) { gguf_set_val_str(g, "tokenizer.chat_template", "<|im_start|>"); });
  ASSERT_TRUE(tokenizer);
  const std::string long_text(10000, 'x');
  const std::vector<ChatMessage> messages = {{"user", long_text}, {"assistant", "y"}};
  EXPECT_EQ(tokenizer->apply_chat_template(messages, false).value(),
            "<|im_start|>user\n" + long_text + "<|im_end|>\n<|im_start|>assistant\ny<|im_end|>\n");
  EXPECT_EQ(tokenizer->apply_chat_template({}, false).value(), "");

  const auto cut = tokenizer->apply_chat_template(std::vector<ChatMessage>{{"user", std::string("a\0b", 3)}}, true);
  ASSERT_FALSE(cut);
  EXPECT_THAT(cut.error().message, HasSubstr("message 0 contains a NUL byte"));
}

class TokenizerReal : public ::testing::Test {
 protected:
  static const Tokenizer* tokenizer() {
    static const std::optional<Tokenizer> loaded = []() -> std::optional<Tokenizer> {
      const auto path = test::real_model_path();
      if (!path) return std::nullopt;
      auto result = Tokenizer::load(*path);
      EXPECT_TRUE(result) << result.error().message;
      return result ? std::optional<Tokenizer>(std::move(*result)) : std::nullopt;
    }();
    return loaded ? &*loaded : nullptr;
  }
  void SetUp() override {
    if (tokenizer() == nullptr) GTEST_SKIP() << "no real model";
  }
};

TEST_F(TokenizerReal, MultilingualTextRoundTrips) {
  for (const std::string text : {"Hello, world!", "Größe – naïve café", "Привет, мир", "你好，世界", "مرحبا بالعالم",
                                 "नमस्ते दुनिया", "👩‍👩‍👧‍👦 🏳️‍🌈", " leading, trailing \n\t ",
                                 "x = {1: \"a\"};\n\n  // code", "", "e\u0301"}) {
    const auto tokens = tokenizer()->encode(text, false, false);
    ASSERT_TRUE(tokens) << tokens.error().message;
    EXPECT_EQ(decode(*tokenizer(), *tokens), text);
  }
}

TEST_F(TokenizerReal, SpecialTokensAreReadOnRequestOnly) {
  const auto special = tokenizer()->encode("<|im_end|>", false, true);
  ASSERT_TRUE(special);
  ASSERT_EQ(special->size(), 1U);
  const Token end = special->front();
  EXPECT_TRUE(tokenizer()->is_end_of_generation(end));
  EXPECT_EQ(tokenizer()->piece(end), "");
  EXPECT_EQ(tokenizer()->piece(end, true), "<|im_end|>");
  EXPECT_GT(tokenizer()->encode("<|im_end|>", false, false)->size(), 1U);
}

TEST_F(TokenizerReal, ChatTemplateContainsTheMessages) {
  const std::vector<ChatMessage> messages = {{"system", "Be brief."}, {"user", "What is a cache?"}};
  EXPECT_TRUE(tokenizer()->has_chat_template());
  EXPECT_THAT(tokenizer()->chat_template(), HasSubstr("<|im_start|>"));
  const std::string turns = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is a cache?<|im_end|>\n";
  EXPECT_EQ(tokenizer()->apply_chat_template(messages, false).value(), turns);
  EXPECT_EQ(tokenizer()->apply_chat_template(messages, true).value(), turns + "<|im_start|>assistant\n");
}

TEST_F(TokenizerReal, VeryLongWordsAreTokenized) {
  const std::string word(1000000, 'a');
  const auto tokens = tokenizer()->encode(word, false, false);
  ASSERT_TRUE(tokens) << tokens.error().message;
  EXPECT_EQ(decode(*tokenizer(), *tokens), word);
}

TEST_F(TokenizerReal, SeveralThreadsMayEncodeAtOnce) {
  const std::string text = "The quick brown fox jumps over the lazy dog. ";
  const auto expected = tokenizer()->encode(text, false, false).value();
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 100; ++i) wrong[t] += tokenizer()->encode(text, false, false).value() != expected;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(wrong, ElementsAre(0, 0, 0, 0));
}

TEST_F(TokenizerReal, LoadingPrintsNothing) {
  ::testing::internal::CaptureStderr();
  ::testing::internal::CaptureStdout();
  EXPECT_TRUE(Tokenizer::load(*test::real_model_path()));
  EXPECT_FALSE(Tokenizer::load("/etc/hostname"));
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), "");
}

}  // namespace
}  // namespace a2sf
