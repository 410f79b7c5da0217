// The GPU against the CPU on a real model. Skipped where there is no GPU.
#include <a2sf/a2sf.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
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

class CudaParity : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (auto backend = make_cuda_backend(); !backend) GTEST_SKIP() << backend.error().message;
    path_ = test::fetched_model_path(GetParam().file).value_or("");
    if (path_.empty()) GTEST_SKIP() << "no " << GetParam().file << " (tools/fetch)";
  }

  std::vector<float> logits(const std::string& device) const {
    const auto model = Model::load(path_, {.threads = 0, .device = device, .isa = {}}).value();
    std::ifstream file(std::string(A2SF_TEST_FOLDER) + "/../LICENSE");
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    auto tokens = Tokenizer::load(path_).value().encode(text, true, false).value();
    tokens.resize(std::min(tokens.size(), kTokens));
    Session session = Session::create(model, {.policy = parse_policy(GetParam().policy).value()}).value();
    EXPECT_TRUE(session.feed(tokens, WantLogits::all));
    return {session.logits().begin(), session.logits().end()};
  }

  std::string path_;
};

// The CPU rounds activations to 8 bits, the GPU does not.
TEST_P(CudaParity, PredictsWhatTheCpuPredicts) {
  const std::vector<float> cpu = logits("cpu"), gpu = logits("cuda");
  ASSERT_EQ(cpu.size(), gpu.size());
  const std::size_t vocabulary = static_cast<std::size_t>(Model::load(path_).value()->info().vocabulary);
  const std::size_t rows = cpu.size() / vocabulary;
  double divergence = 0;
  std::size_t same = 0;
  for (std::size_t i = 0; i < rows; ++i) {
    const auto p = std::span(cpu).subspan(i * vocabulary, vocabulary),
               q = std::span(gpu).subspan(i * vocabulary, vocabulary);
    const double p_sum = log_sum_exp(p), q_sum = log_sum_exp(q);
    for (std::size_t t = 0; t < vocabulary; ++t)
      divergence += std::exp(p[t] - p_sum) * (p[t] - p_sum - (q[t] - q_sum)) / static_cast<double>(rows);
    if (std::max_element(p.begin(), p.end()) - p.begin() == std::max_element(q.begin(), q.end()) - q.begin()) ++same;
  }
  RecordProperty("mean_kl", std::to_string(divergence));
  RecordProperty("same_first", std::to_string(static_cast<double>(same) / static_cast<double>(rows)));
  EXPECT_LE(divergence, 1e-2);
  EXPECT_GE(static_cast<double>(same), .97 * static_cast<double>(rows));
  std::printf("mean KL %.2e, first choice the same in %zu of %zu\n", divergence, same, rows);
}

INSTANTIATE_TEST_SUITE_P(, CudaParity,
                         testing::Values(Case{"smollm2_full", "SmolLM2-135M-Instruct.Q4_1.gguf", "full"},
                                         Case{"smollm2_a2sf", "SmolLM2-135M-Instruct.Q4_1.gguf", "a2sf:budget=128"},
                                         Case{"gemma_full", "gemma-3-270m-q4_k_m.gguf", "full"}),
                         [](const auto& each) { return std::string(each.param.name); });

}  // namespace
}  // namespace a2sf
