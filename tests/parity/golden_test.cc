// What leaves the cache against a slow simulation written apart from the library: full attention under a mask per layer
// and KV head, in double where it matters, on weights dequantised to float32.
#include <a2sf/a2sf.h>
#include <fmt/format.h>
#include <ggml.h>
#include <gguf.h>
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
#include <span>
#include <string>
#include <vector>

#include "support/real_model.h"

namespace a2sf {
namespace {

constexpr const char* kText = "/usr/share/common-licenses/GPL-3";
constexpr int kTokens = 160;
constexpr int kBudget = 32;
constexpr int kRecent = kBudget / 2;  // the default of h2o and a2sf

using Floats = std::vector<float>;

// The model as the simulation reads it: every tensor float32, by name.
class FloatModel {
 public:
  explicit FloatModel(const std::string& path) {
    ggml_context* tensors = nullptr;
    gguf_.reset(gguf_init_from_file(path.c_str(), gguf_init_params{.no_alloc = false, .ctx = &tensors}));
    tensors_.reset(tensors);
    if (!gguf_) return;
    layers = count("block_count");
    embedding = count("embedding_length");
    feed_forward = count("feed_forward_length");
    heads = count("attention.head_count");
    kv_heads = count("attention.head_count_kv");
    head_dim = embedding / heads;
    epsilon = number("attention.layer_norm_rms_epsilon");
    rope_base = number("rope.freq_base");
  }

  bool loaded() const { return gguf_ != nullptr; }
  const float* tensor(const std::string& name) const {
    const ggml_tensor* found = ggml_get_tensor(tensors_.get(), name.c_str());
    return found != nullptr && found->type == GGML_TYPE_F32 ? static_cast<const float*>(found->data) : nullptr;
  }

  int layers = 0, embedding = 0, feed_forward = 0, heads = 0, kv_heads = 0, head_dim = 0;
  double epsilon = 0, rope_base = 0;

 private:
  struct Free {
    void operator()(gguf_context* gguf) const { gguf_free(gguf); }
    void operator()(ggml_context* ggml) const { ggml_free(ggml); }
  };
  std::int64_t key(const char* name) const { return gguf_find_key(gguf_.get(), fmt::format("llama.{}", name).c_str()); }
  int count(const char* name) const { return static_cast<int>(gguf_get_val_u32(gguf_.get(), key(name))); }
  double number(const char* name) const { return gguf_get_val_f32(gguf_.get(), key(name)); }

  std::unique_ptr<gguf_context, Free> gguf_;
  std::unique_ptr<ggml_context, Free> tensors_;
};

float dot(const float* a, const float* b, int size) {
  float sums[8] = {};
  for (int i = 0; i < size; i += 8) {
    for (int lane = 0; lane < 8; ++lane) sums[lane] += a[i + lane] * b[i + lane];
  }
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

// Rows of `in`, one per token, times a matrix of one row per output.
Floats multiply(const float* matrix, const Floats& in, int columns, int outputs) {
  const int rows = static_cast<int>(in.size()) / columns;
  Floats out(static_cast<std::size_t>(rows * outputs));
  for (int o = 0; o < outputs; ++o) {
    const float* weights = matrix + static_cast<std::ptrdiff_t>(o) * columns;
    for (int row = 0; row < rows; ++row) {
      out[static_cast<std::size_t>(row * outputs + o)] = dot(weights, in.data() + row * columns, columns);
    }
  }
  return out;
}

Floats normalise(const Floats& in, const float* weight, int columns, double epsilon) {
  Floats out(in.size());
  for (std::size_t first = 0; first < in.size(); first += static_cast<std::size_t>(columns)) {
    double squares = 0;
    for (int i = 0; i < columns; ++i) squares += static_cast<double>(in[first + i]) * in[first + i];
    const double scale = 1 / std::sqrt(squares / columns + epsilon);
    for (int i = 0; i < columns; ++i) out[first + i] = static_cast<float>(in[first + i] * scale) * weight[i];
  }
  return out;
}

// Pairs (2i, 2i + 1), as the llama architecture has them in GGUF. Row t of `values` is position t.
void rotate(Floats& values, int heads, int head_dim, double base) {
  const int columns = heads * head_dim;
  for (int t = 0; t < kTokens; ++t) {
    for (int i = 0; i < columns; i += 2) {
      const double angle = t * std::pow(base, -static_cast<double>(i % head_dim) / head_dim);
      float* pair = values.data() + t * columns + i;
      const double x = pair[0], y = pair[1];
      pair[0] = static_cast<float>(x * std::cos(angle) - y * std::sin(angle));
      pair[1] = static_cast<float>(x * std::sin(angle) + y * std::cos(angle));
    }
  }
}

void add(Floats& to, const Floats& what) {
  for (std::size_t i = 0; i < to.size(); ++i) to[i] += what[i];
}

// One KV head: which tokens it holds after each step, and the scores that decided.
struct HeadTrace {
  std::vector<std::vector<bool>> kept;      // [step][position]
  std::vector<std::vector<double>> scores;  // [step][position], before the eviction of that step
  std::vector<int> victims;                 // [step]; -1: none
};

class Simulation {
 public:
  Simulation(const FloatModel& model, double alpha) : model_(model), alpha_(alpha) {}

  // [layer * kv heads + kv head]
  std::vector<HeadTrace> run(std::span<const Token> tokens) {
    const float* table = model_.tensor("token_embd.weight");
    Floats x;
    for (const Token token : tokens) {
      const float* row = table + static_cast<std::ptrdiff_t>(token) * model_.embedding;
      x.insert(x.end(), row, row + model_.embedding);
    }
    for (int layer = 0; layer < model_.layers; ++layer) run_layer(layer, x);
    return std::move(traces_);
  }

 private:
  void run_layer(int layer, Floats& x) {
    const auto weight = [&](const char* name) { return model_.tensor(fmt::format("blk.{}.{}.weight", layer, name)); };
    const int width = model_.embedding, kv_width = model_.kv_heads * model_.head_dim, inner = model_.feed_forward;
    Floats in = normalise(x, weight("attn_norm"), width, model_.epsilon);
    Floats q = multiply(weight("attn_q"), in, width, width);
    Floats k = multiply(weight("attn_k"), in, width, kv_width);
    const Floats v = multiply(weight("attn_v"), in, width, kv_width);
    rotate(q, model_.heads, model_.head_dim, model_.rope_base);
    rotate(k, model_.kv_heads, model_.head_dim, model_.rope_base);
    Floats attended(x.size());
    for (int head = 0; head < model_.kv_heads; ++head) traces_.push_back(attend(head, q, k, v, attended));
    add(x, multiply(weight("attn_output"), attended, width, width));

    in = normalise(x, weight("ffn_norm"), width, model_.epsilon);
    Floats gate = multiply(weight("ffn_gate"), in, width, inner);
    const Floats up = multiply(weight("ffn_up"), in, width, inner);
    for (std::size_t i = 0; i < gate.size(); ++i) gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
    add(x, multiply(weight("ffn_down"), gate, inner, width));
  }

  HeadTrace attend(int kv_head, const Floats& q, const Floats& k, const Floats& v, Floats& attended) const {
    const int dim = model_.head_dim, group = model_.heads / model_.kv_heads, kv_width = model_.kv_heads * dim;
    HeadTrace trace;
    std::vector<bool> keep(kTokens, false);
    std::vector<double> scores(kTokens, 0.0);
    for (int t = 0; t < kTokens; ++t) {
      keep[t] = true;
      for (double& score : scores) score *= alpha_;
      for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
        const float* query = q.data() + t * model_.embedding + head * dim;
        std::vector<double> weights(kTokens, 0.0);
        double sum = 0;
        double highest = -INFINITY;
        for (int s = 0; s <= t; ++s) {
          if (!keep[s]) continue;
          weights[s] = dot(query, k.data() + s * kv_width + kv_head * dim, dim) / std::sqrt(static_cast<double>(dim));
          highest = std::max(highest, weights[s]);
        }
        for (int s = 0; s <= t; ++s) {
          weights[s] = keep[s] ? std::exp(weights[s] - highest) : 0;
          sum += weights[s];
        }
        std::vector<double> out(dim, 0.0);
        for (int s = 0; s <= t; ++s) {
          scores[s] += weights[s] / sum;
          for (int d = 0; d < dim; ++d) out[d] += weights[s] / sum * v[s * kv_width + kv_head * dim + d];
        }
        for (int d = 0; d < dim; ++d) attended[t * model_.embedding + head * dim + d] = static_cast<float>(out[d]);
      }
      int victim = -1;
      if (std::count(keep.begin(), keep.end(), true) > kBudget) {
        for (int s = 0; s <= t - kRecent; ++s) {
          if (keep[s] && (victim < 0 || scores[s] < scores[victim])) victim = s;
        }
      }
      trace.scores.push_back(scores);
      if (victim >= 0) keep[victim] = false;
      trace.victims.push_back(victim);
      trace.kept.push_back(keep);
    }
    return trace;
  }

  const FloatModel& model_;
  double alpha_;
  std::vector<HeadTrace> traces_;
};

// What the library kept after each step, from its record of evictions.
std::vector<std::vector<bool>> kept_of(std::span<const Eviction> evictions) {
  std::vector<std::vector<bool>> kept;
  std::vector<bool> keep(kTokens, false);
  auto next = evictions.begin();
  for (int t = 0; t < kTokens; ++t) {
    keep[t] = true;
    for (; next != evictions.end() && next->step == t; ++next) keep[next->position] = false;
    kept.push_back(keep);
  }
  return kept;
}

class Golden : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    const auto model = test::real_model_path();
    if (!model || !std::filesystem::exists(kText)) return;
    const std::string name = fmt::format("a2sf-golden-{}.gguf", getpid());
    path_ = (std::filesystem::temp_directory_path() / name).string();
    llama_model_quantize_params to_float = llama_model_quantize_default_params();
    to_float.ftype = LLAMA_FTYPE_ALL_F32;
    to_float.allow_requantize = true;
    llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
    ASSERT_EQ(llama_model_quantize(model->c_str(), path_.c_str(), &to_float), 0U);
  }
  static void TearDownTestSuite() {
    if (!path_.empty()) std::filesystem::remove(path_);
  }
  void SetUp() override {
    if (path_.empty()) GTEST_SKIP() << "no model (tools/fetch smollm2-135m), or no " << kText;
  }

  void compare(const std::string& policy, double alpha);

  static inline std::string path_;
};

void Golden::compare(const std::string& policy, double alpha) {
  std::ifstream file(kText, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const auto tokenizer = Tokenizer::load(path_);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  auto tokens = tokenizer->encode(text, false, false);
  ASSERT_TRUE(tokens) << tokens.error().message;
  tokens->resize(kTokens);

  SessionOptions options;
  options.kv_type = KvType::f32;
  const auto spec = parse_policy(policy);
  ASSERT_TRUE(spec) << spec.error().message;
  options.policy = *spec;
  const auto model = Model::load(path_);
  ASSERT_TRUE(model) << model.error().message;
  auto session = Session::create(*model, options);
  ASSERT_TRUE(session) << session.error().message;
  ASSERT_EQ(session->rule(0, 0).budget, kBudget);
  ASSERT_EQ(session->rule(0, 0).recent, kRecent);
  ASSERT_EQ(session->rule(0, 0).sink, 0);
  session->record_evictions();
  const Status fed = session->feed(*tokens);
  ASSERT_TRUE(fed) << fed.error().message;

  const FloatModel weights(path_);
  ASSERT_TRUE(weights.loaded());
  ASSERT_NE(weights.tensor("token_embd.weight"), nullptr);
  const std::vector<HeadTrace> traces = Simulation(weights, alpha).run(*tokens);

  double jaccard = 0, widest = 0;
  int sets = 0, same = 0, first_layer_sets = 0, first_layer_same = 0, differing_heads = 0;
  for (int layer = 0; layer < weights.layers; ++layer) {
    for (int head = 0; head < weights.kv_heads; ++head) {
      const HeadTrace& trace = traces[static_cast<std::size_t>(layer * weights.kv_heads + head)];
      const std::vector<Eviction> evictions = session->evictions(layer, head);
      ASSERT_EQ(evictions.size(), static_cast<std::size_t>(kTokens - kBudget));
      const auto kept = kept_of(evictions);
      bool differs = false;
      for (int t = kBudget; t < kTokens; ++t) {
        int both = 0, either = 0;
        for (int s = 0; s <= t; ++s) {
          both += kept[t][s] && trace.kept[t][s] ? 1 : 0;
          either += kept[t][s] || trace.kept[t][s] ? 1 : 0;
        }
        const bool equal = both == either;
        jaccard += static_cast<double>(both) / either;
        ++sets;
        same += equal ? 1 : 0;
        if (layer == 0) ++first_layer_sets;
        if (layer == 0 && equal) ++first_layer_same;
        if (!equal && !differs) {  // the sets were equal until now, so this step's victims differ
          const double theirs = trace.scores[t][trace.victims[t]];
          const double ours = trace.scores[t][evictions[static_cast<std::size_t>(t - kBudget)].position];
          const double gap = std::abs(ours - theirs) / std::max(ours, theirs);
          EXPECT_LE(gap, 1e-3) << "layer " << layer << ", KV head " << head << ", token " << t;
          widest = std::max(widest, gap);
          differs = true;
          ++differing_heads;
        }
      }
    }
  }
  fmt::print(
      "{}: {} of {} sets the same ({} of {} in layer 0), mean Jaccard {:.5f}; {} of {} heads differ, first by a gap of "
      "at most {:.1e}\n",
      policy, same, sets, first_layer_same, first_layer_sets, jaccard / sets, differing_heads, traces.size(), widest);
  EXPECT_GE(first_layer_same, 0.999 * first_layer_sets);
  EXPECT_GE(jaccard / sets, 0.98);
}

TEST_F(Golden, ForgettingScores) { compare(fmt::format("a2sf:alpha=0.9:budget={}", kBudget), 0.9); }

TEST_F(Golden, SummedScores) { compare(fmt::format("h2o:budget={}", kBudget), 1); }

}  // namespace
}  // namespace a2sf
