// Tiny random models of every architecture that libllama knows: the full cache gives libllama's logits.
#include <a2sf/a2sf.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "parity/libllama_logits.h"
#include "support/tiny_model.h"

namespace a2sf {
namespace {

struct Case {
  const char* name;
  TinyModel model;
  double tolerance;  // relative to the largest logit
};

// Where libllama takes its GELU from a table of float16, and in gptneox the tanh form for erf, that is the difference.
constexpr double kExact = 5e-6, kGeluTable = 1.5e-3;

void PrintTo(const Case& each, std::ostream* out) { *out << each.name; }

std::vector<Case> cases() {
  TinyModel llama, qwen2{.architecture = "qwen2"}, qwen3{.architecture = "qwen3"}, gemma3{.architecture = "gemma3"},
      phi3{.architecture = "phi3"}, gpt2{.architecture = "gpt2"}, gptneox{.architecture = "gptneox"};
  for (TinyModel* each : {&gpt2, &gptneox}) each->kv_heads = each->heads;
  gpt2.context = 512;
  gemma3.layers = 7;  // the sixth one has no window
  gemma3.window = 24;
  gemma3.head_dim = 32;  // not embedding / heads
  qwen3.head_dim = 32;
  TinyModel unlimited = gemma3, sequential = gptneox, scaled = llama;
  unlimited.window = 0;
  sequential.parallel = false;
  scaled.rope_factors = true;
  TinyModel longrope = phi3;
  longrope.original_context = 2048;
  return {{"llama", llama, kExact},
          {"llama3", scaled, kExact},
          {"qwen2", qwen2, kExact},
          {"qwen3", qwen3, kExact},
          {"gemma3", gemma3, kGeluTable},
          {"gemma3_unlimited", unlimited, kGeluTable},
          {"phi3", phi3, kExact},
          {"phi3_longrope", longrope, kExact},
          {"gpt2", gpt2, kGeluTable},
          {"gptneox", gptneox, kGeluTable},
          {"gptneox_sequential", sequential, kGeluTable}};
}

class Architectures : public testing::TestWithParam<Case> {};

TEST_P(Architectures, GiveTheLogitsOfLibllama) {
  const Case& each = GetParam();
  const std::string path = write_tiny_model(each.model, temporary_path(each.name));
  std::mt19937 random(5);
  std::vector<Token> tokens(100);
  const auto vocabulary = static_cast<std::size_t>(each.model.vocabulary);
  for (Token& token : tokens) token = static_cast<Token>(random() % vocabulary);
  const auto theirs = test::libllama_logits(path, tokens, 0, vocabulary, {.kv_type = GGML_TYPE_F32});
  const auto model = Model::load(path);
  std::filesystem::remove(path);
  ASSERT_TRUE(model) << model.error().message;
  SessionOptions options;
  options.policy = parse_policy("full").value();
  options.kv_type = KvType::f32;
  Session session = Session::create(*model, options).value();
  ASSERT_TRUE(session.feed(tokens, WantLogits::all));
  const auto ours = session.logits();
  ASSERT_EQ(theirs.size(), ours.size());
  double largest = 0, difference = 0;
  for (std::size_t i = 0; i < ours.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(theirs[i])));
    difference = std::max(difference, std::abs(static_cast<double>(theirs[i]) - static_cast<double>(ours[i])));
  }
  RecordProperty("relative_difference", std::to_string(difference / largest));
  EXPECT_LE(difference, each.tolerance * largest);
}

INSTANTIATE_TEST_SUITE_P(, Architectures, testing::ValuesIn(cases()),
                         [](const auto& each) { return std::string(each.param.name); });

}  // namespace
}  // namespace a2sf
