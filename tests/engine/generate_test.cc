#include "engine/generate.h"

#include <a2sf/model.h>
#include <gtest/gtest.h>

#include "support/tiny_model.h"
#include "text/tiny_vocabulary.h"
#include "text/utf8.h"

namespace a2sf {
namespace {

class Generate : public testing::Test {
 protected:
  Generate() {
    TinyModel sizes;
    sizes.vocabulary = static_cast<int>(test::tiny_tokens().size());
    const std::string path = write_tiny_model(sizes, temporary_path("generate.gguf"));
    model_ = Model::load(path, {.threads = 1, .device = "cpu", .repack = true, .isa = ""}).value();
    std::filesystem::remove(path);
  }

  // Byte tokens for the most part: the text rarely ends at the end of a character.
  Generation generate_until(std::size_t tokens, std::uint32_t seed) {
    Session session = Session::create(model_, {.policy = {}, .kv_type = KvType::f16, .sequence_tokens = 0}).value();
    Sampler sampler = Sampler::create(tokenizer_, {.temperature = 1, .top_k = 0, .seed = seed}).value();
    const std::vector<Token> prompt = {1, 260};
    EXPECT_TRUE(session.feed(prompt));
    std::size_t asked = 0;
    const auto show = [&](std::string_view) { return ++asked < tokens; };
    auto generation = generate(session, tokenizer_, sampler, {.tokens = 1000, .stop = {}}, show);
    EXPECT_TRUE(generation);
    EXPECT_EQ(session.position(), static_cast<std::int64_t>(prompt.size() + generation->fed));
    return *generation;
  }

  static Tokenizer tokenizer() {
    const test::TemporaryFile file;
    test::write_tiny_vocabulary(file.path());
    return Tokenizer::load(file.path()).value();
  }

  const Tokenizer tokenizer_ = tokenizer();
  std::shared_ptr<const Model> model_;
};

TEST_F(Generate, AnInterruptionKeepsWhatThereIsInWholeCharacters) {
  bool cut_a_character = false;
  for (std::uint32_t seed = 0; seed < 40; ++seed) {
    const Generation generation = generate_until(12, seed);
    if (generation.reason == StopReason::end_of_generation) continue;
    EXPECT_EQ(generation.reason, StopReason::interrupted);
    EXPECT_EQ(generation.tokens.size(), 12U);
    EXPECT_EQ(generation.fed, 11U);
    std::string bytes;
    for (const Token token : generation.tokens) bytes += tokenizer_.piece(token);
    const std::size_t cut = text::incomplete_tail_length(bytes);
    EXPECT_EQ(generation.text, text::replace_invalid(bytes.substr(0, bytes.size() - cut)));
    cut_a_character |= cut > 0;
  }
  EXPECT_TRUE(cut_a_character);
}

}  // namespace
}  // namespace a2sf
