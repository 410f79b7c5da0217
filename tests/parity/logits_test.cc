// The full cache against libllama on the same file: both predict the same next tokens.
#include <a2sf/a2sf.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <llama.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "parity/libllama_logits.h"
#include "support/real_model.h"

namespace a2sf {
namespace {

constexpr const char* kText = "/usr/share/common-licenses/GPL-3";
constexpr int kThreads = 2;

struct RealModel {
  const char* name;  // as tools/fetch knows it
  std::optional<std::string> (*path)();
  bool starts_with_bos;
  std::size_t tokens, first;  // of the text, and of these the first whose logits are compared
};

// Gemma is compared where its windows of 512 tokens no longer hold all.
const RealModel kModels[] = {
    {"smollm2-135m", test::real_model_path, false, 512, 0},
    {"gemma3-270m", [] { return test::fetched_model_path("gemma-3-270m-q4_k_m.gguf"); }, true, 768, 512}};

std::vector<double> log_softmax(std::span<const float> logits) {
  const double highest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - highest);
  const double shift = highest + std::log(sum);
  std::vector<double> result(logits.begin(), logits.end());
  for (double& value : result) value -= shift;
  return result;
}

double divergence(std::span<const double> from, std::span<const double> to) {
  double sum = 0;
  for (std::size_t i = 0; i < from.size(); ++i) sum += std::exp(from[i]) * (from[i] - to[i]);
  return sum;
}

std::size_t best(std::span<const double> values) {
  return static_cast<std::size_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

void PrintTo(const RealModel& each, std::ostream* out) { *out << each.name; }

struct Agreement {
  std::size_t rows = 0;
  double mean_kl = 0, worst_kl = 0;  // of a2sf from libllama
  std::size_t same_first = 0;        // tokens where both rank the same one first
  double widest_gap = 0;             // in nats of libllama, between the two that are ranked first, where they differ
};

Agreement compare(std::span<const float> theirs, std::span<const float> ours, std::size_t vocabulary) {
  Agreement result;
  result.rows = theirs.size() / vocabulary;
  for (std::size_t i = 0; i < result.rows; ++i) {
    const auto p = log_softmax(theirs.subspan(i * vocabulary, vocabulary));
    const auto q = log_softmax(ours.subspan(i * vocabulary, vocabulary));
    const double kl = divergence(p, q);
    result.mean_kl += kl / static_cast<double>(result.rows);
    result.worst_kl = std::max(result.worst_kl, kl);
    if (best(p) == best(q)) ++result.same_first;
    result.widest_gap = std::max(result.widest_gap, p[best(p)] - p[best(q)]);
  }
  fmt::print("mean KL {:.2e}, worst {:.2e}; first choice the same in {} of {}, otherwise at most {:.4f} nats apart\n",
             result.mean_kl, result.worst_kl, result.same_first, result.rows, result.widest_gap);
  return result;
}

class Logits : public testing::TestWithParam<RealModel> {
 protected:
  void SetUp() override {
    const auto path = GetParam().path();
    if (!path) GTEST_SKIP() << "no model: tools/fetch " << GetParam().name;
    path_ = *path;
    std::ifstream file(kText, std::ios::binary);
    if (!file) GTEST_SKIP() << "no " << kText;
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    const auto tokenizer = Tokenizer::load(path_);
    ASSERT_TRUE(tokenizer) << tokenizer.error().message;
    auto tokens = tokenizer->encode(text, GetParam().starts_with_bos, false);
    ASSERT_TRUE(tokens) << tokens.error().message;
    ASSERT_GE(tokens->size(), GetParam().tokens);
    tokens_ = std::move(*tokens);
    tokens_.resize(GetParam().tokens);
    vocabulary_ = static_cast<std::size_t>(tokenizer->vocabulary_size());
  }

  std::vector<float> theirs(const std::string& path,
                            llama_flash_attn_type flash = LLAMA_FLASH_ATTN_TYPE_DISABLED) const {
    return test::libllama_logits(path, tokens_, GetParam().first, vocabulary_, {.threads = kThreads, .flash = flash});
  }

  std::vector<float> ours(const std::string& path) const {
    ModelOptions model_options;
    model_options.threads = kThreads;
    const auto model = Model::load(path, model_options);
    SessionOptions options;
    options.policy = parse_policy("full").value();
    auto session = model ? Session::create(*model, options) : tl::unexpected(model.error());
    if (!session) return ADD_FAILURE() << session.error().message, std::vector<float>();
    const auto [first, rest] =
        std::pair(std::span(tokens_).first(GetParam().first), std::span(tokens_).subspan(GetParam().first));
    EXPECT_TRUE(first.empty() || session->feed(first, WantLogits::none));
    EXPECT_TRUE(session->feed(rest, WantLogits::all));
    return {session->logits().begin(), session->logits().end()};
  }

  // Both sides on one file; nothing and a failure if either cannot run.
  std::optional<Agreement> run(const std::string& path) const {
    const std::vector<float> a = theirs(path), b = ours(path);
    EXPECT_EQ(a.size(), (tokens_.size() - GetParam().first) * vocabulary_);
    EXPECT_EQ(a.size(), b.size());
    if (a.empty() || a.size() != b.size()) return std::nullopt;
    return compare(a, b, vocabulary_);
  }

  std::string path_;
  std::vector<Token> tokens_;
  std::size_t vocabulary_ = 0;
};

// Where activations are rounded to 8 bits, differences in the last place of attention flip roundings in every product
// after it. How far that carries is what libllama's own two ways to attend show; a2sf may be no further from either.
TEST_P(Logits, AgreeWithLibllamaAsItDoesWithItself) {
  const std::vector<float> plain = theirs(path_), flash = theirs(path_, LLAMA_FLASH_ATTN_TYPE_ENABLED);
  ASSERT_FALSE(plain.empty());
  ASSERT_EQ(flash.size(), plain.size());
  const Agreement own = compare(plain, flash, vocabulary_);
  const auto agreement = run(path_);
  ASSERT_TRUE(agreement);
  EXPECT_LE(agreement->mean_kl, 1.5 * own.mean_kl);
  EXPECT_LE(agreement->mean_kl, 1e-2);
  EXPECT_GE(static_cast<double>(agreement->same_first),
            static_cast<double>(own.same_first) - 0.01 * static_cast<double>(own.rows));
}

// Without quantised activations nothing but the order of additions and libllama's float16 in attention is left.
TEST_P(Logits, AgreeWithLibllamaOnFloatWeights) {
  const std::string path =
      (std::filesystem::temp_directory_path() / fmt::format("a2sf-logits-{}.gguf", getpid())).string();
  llama_model_quantize_params to_float = llama_model_quantize_default_params();
  to_float.ftype = LLAMA_FTYPE_ALL_F32;
  to_float.allow_requantize = true;
  llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
  ASSERT_EQ(llama_model_quantize(path_.c_str(), path.c_str(), &to_float), 0U);
  const auto agreement = run(path);
  std::filesystem::remove(path);
  ASSERT_TRUE(agreement);
  EXPECT_LE(agreement->mean_kl, 1e-5);
  EXPECT_GE(static_cast<double>(agreement->same_first), 0.99 * static_cast<double>(agreement->rows));
}

INSTANTIATE_TEST_SUITE_P(, Logits, testing::ValuesIn(kModels), [](const auto& each) {
  std::string name = each.param.name;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

}  // namespace
}  // namespace a2sf
