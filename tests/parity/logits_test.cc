// The full cache against libllama on the same file: both predict the same next tokens.
#include <a2sf/a2sf.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <llama.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <fstream>
#include <iterator>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "support/real_model.h"

namespace a2sf {
namespace {

constexpr const char* kText = "/usr/share/common-licenses/GPL-3";
constexpr std::size_t kTokens = 512;
constexpr int kThreads = 2;

struct Free {
  void operator()(llama_model* model) const { llama_model_free(model); }
  void operator()(llama_context* context) const { llama_free(context); }
};

// Logits [token][vocabulary] as libllama computes them; everything of libllama's is gone on return. Empty on failure.
std::vector<float> llama_logits(const std::string& path, std::span<const Token> tokens, std::size_t vocabulary) {
  llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
  llama_model_params of_model = llama_model_default_params();
  of_model.n_gpu_layers = 0;
  const std::unique_ptr<llama_model, Free> model(llama_model_load_from_file(path.c_str(), of_model));
  if (!model) return {};
  llama_context_params of_context = llama_context_default_params();
  of_context.n_ctx = 1024;
  of_context.n_batch = kTokens;
  of_context.n_threads = kThreads;
  of_context.n_threads_batch = kThreads;
  of_context.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
  of_context.type_k = GGML_TYPE_F16;
  of_context.type_v = GGML_TYPE_F16;
  const std::unique_ptr<llama_context, Free> context(llama_init_from_model(model.get(), of_context));
  if (!context) return {};

  llama_batch batch = llama_batch_init(static_cast<int>(tokens.size()), 0, 1);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    batch.token[i] = tokens[i];
    batch.pos[i] = static_cast<llama_pos>(i);
    batch.n_seq_id[i] = 1;
    batch.seq_id[i][0] = 0;
    batch.logits[i] = 1;
  }
  batch.n_tokens = static_cast<int>(tokens.size());
  const int failed = llama_decode(context.get(), batch);
  llama_batch_free(batch);
  if (failed != 0) return {};
  const float* logits = llama_get_logits(context.get());
  return {logits, logits + tokens.size() * vocabulary};
}

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

TEST(Logits, FullCacheAgreesWithLibllama) {
  const auto path = test::real_model_path();
  if (!path) GTEST_SKIP() << "no model: tools/fetch smollm2-135m";
  std::ifstream file(kText, std::ios::binary);
  if (!file) GTEST_SKIP() << "no " << kText;
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const auto tokenizer = Tokenizer::load(*path);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  auto tokens = tokenizer->encode(text, false, false);
  ASSERT_TRUE(tokens) << tokens.error().message;
  ASSERT_GE(tokens->size(), kTokens);
  tokens->resize(kTokens);

  const auto vocabulary = static_cast<std::size_t>(tokenizer->vocabulary_size());
  const std::vector<float> expected = llama_logits(*path, *tokens, vocabulary);
  ASSERT_EQ(expected.size(), kTokens * vocabulary);

  const auto model = Model::load(*path, {.threads = kThreads});
  ASSERT_TRUE(model) << model.error().message;
  SessionOptions options;
  options.policy.policy = Policy::full;
  auto session = Session::create(*model, options);
  ASSERT_TRUE(session) << session.error().message;
  const Status fed = session->feed(*tokens, WantLogits::all);
  ASSERT_TRUE(fed) << fed.error().message;
  const std::span<const float> logits = session->logits();
  ASSERT_EQ(logits.size(), expected.size());

  double sum = 0;
  double worst = 0;
  double widest = 0;  // of the gaps, in nats of libllama, between two tokens that each side ranks first
  std::size_t agreed = 0;
  for (std::size_t i = 0; i < kTokens; ++i) {
    const auto theirs = log_softmax(std::span(expected).subspan(i * vocabulary, vocabulary));
    const auto ours = log_softmax(logits.subspan(i * vocabulary, vocabulary));
    const double each = divergence(theirs, ours);
    sum += each;
    worst = std::max(worst, each);
    if (best(theirs) == best(ours)) ++agreed;
    widest = std::max(widest, theirs[best(theirs)] - theirs[best(ours)]);
  }
  const double mean = sum / static_cast<double>(kTokens);
  fmt::print("mean KL {:.2e}, worst {:.2e}; first choice the same in {} of {}, otherwise at most {:.4f} nats apart\n",
             mean, worst, agreed, kTokens, widest);
  EXPECT_LE(mean, 1e-3);
  EXPECT_GE(static_cast<double>(agreed), 0.99 * static_cast<double>(kTokens));
}

}  // namespace
}  // namespace a2sf
