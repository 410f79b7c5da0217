// The GPU against the CPU on a real model. Skipped where there is no GPU.
#include <a2sf/a2sf.h>
#include <gtest/gtest.h>
#include <llama.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "kernels/backend.h"
#include "kernels/logits.h"
#include "support/real_model.h"

namespace a2sf {
namespace {

constexpr std::size_t kTokens = 512;

struct Case {
  const char* name;
  const char* file;  // as tools/fetch keeps it
  const char* policy;
};
void PrintTo(const Case& each, std::ostream* out) { *out << each.name; }

struct Agreement {
  double mean_kl = 0;     // of the GPU from the CPU
  double same_first = 0;  // the share of the rows where both rank the same token first
};

class CudaParity : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (auto backend = make_cuda_backend(); !backend) GTEST_SKIP() << backend.error().message;
    path_ = test::fetched_model_path(GetParam().file).value_or("");
    if (path_.empty()) GTEST_SKIP() << "no " << GetParam().file << " (tools/fetch)";
  }

  static std::vector<float> logits(const std::string& path, const std::string& device) {
    const auto model = Model::load(path, {.threads = 0, .device = device, .isa = {}}).value();
    std::ifstream file(std::string(A2SF_TEST_FOLDER) + "/../LICENSE");
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    auto tokens = Tokenizer::load(path).value().encode(text, true, false).value();
    tokens.resize(std::min(tokens.size(), kTokens));
    Session session = Session::create(model, {.policy = parse_policy(GetParam().policy).value()}).value();
    EXPECT_TRUE(session.feed(tokens, WantLogits::all));
    return {session.logits().begin(), session.logits().end()};
  }

  static Agreement agreement(const std::string& path) {
    const std::vector<float> cpu = logits(path, "cpu"), gpu = logits(path, "cuda");
    EXPECT_EQ(cpu.size(), gpu.size());
    const auto vocabulary = static_cast<std::size_t>(inspect(path).value().model->vocabulary);
    const auto rows = static_cast<double>(cpu.size() / vocabulary);
    Agreement result;
    for (std::size_t at = 0; at < cpu.size(); at += vocabulary) {
      const auto p = std::span(cpu).subspan(at, vocabulary), q = std::span(gpu).subspan(at, vocabulary);
      const double p_sum = log_sum_exp(p), q_sum = log_sum_exp(q);
      for (std::size_t t = 0; t < vocabulary; ++t)
        result.mean_kl += std::exp(p[t] - p_sum) * (p[t] - p_sum - (q[t] - q_sum)) / rows;
      if (std::max_element(p.begin(), p.end()) - p.begin() == std::max_element(q.begin(), q.end()) - q.begin())
        result.same_first += 1 / rows;
    }
    std::printf("mean KL %.2e, the same first choice in %.2f %%\n", result.mean_kl, 100 * result.same_first);
    return result;
  }

  std::string path_;
};

// On quantised weights both round activations to 8 bits, each in its own way.
TEST_P(CudaParity, PredictsWhatTheCpuDoes) {
  const Agreement found = agreement(path_);
  EXPECT_LE(found.mean_kl, 1e-2);
  EXPECT_GE(found.same_first, .95);
}

TEST_P(CudaParity, PredictsWhatTheCpuDoesOnFloatWeights) {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("a2sf-cuda-" + std::to_string(getpid()) + ".gguf")).string();
  llama_model_quantize_params to_float = llama_model_quantize_default_params();
  to_float.ftype = LLAMA_FTYPE_ALL_F32;
  to_float.allow_requantize = true;
  llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
  ASSERT_EQ(llama_model_quantize(path_.c_str(), path.c_str(), &to_float), 0U);
  const Agreement found = agreement(path);
  std::filesystem::remove(path);
  EXPECT_LE(found.mean_kl, 1e-4);
  EXPECT_GE(found.same_first, .99);
}

INSTANTIATE_TEST_SUITE_P(, CudaParity,
                         testing::Values(Case{"smollm2_full", "SmolLM2-135M-Instruct.Q4_1.gguf", "full"},
                                         Case{"smollm2_a2sf", "SmolLM2-135M-Instruct.Q4_1.gguf", "a2sf:budget=128"},
                                         Case{"gemma_full", "gemma-3-270m-q4_k_m.gguf", "full"}),
                         [](const auto& each) { return std::string(each.param.name); });

}  // namespace
}  // namespace a2sf
