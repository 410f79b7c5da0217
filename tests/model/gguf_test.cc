#include "model/gguf.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <memory>

#include "model/weights.h"
#include "support/tiny_model.h"

namespace a2sf {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

struct Free {
  void operator()(gguf_context* gguf) const { gguf_free(gguf); }
  void operator()(ggml_context* ggml) const { ggml_free(ggml); }
};

// A file of this test, gone with it.
class Scratch {
 public:
  explicit Scratch(const std::string& name = "model.gguf") : path_(temporary_path(name)) {}
  ~Scratch() { std::filesystem::remove_all(path_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

void write_bytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

using EditKeys = std::function<void(gguf_context*)>;
using EditTensor = std::function<bool(ggml_tensor*)>;  // false: leave it out

// Reads a whole file with libgguf, lets the test change it and writes it back.
void rewrite(const std::string& path, const EditKeys& keys, const EditTensor& tensor = {}) {
  ggml_context* read = nullptr;
  const std::unique_ptr<gguf_context, Free> from(
      gguf_init_from_file(path.c_str(), gguf_init_params{.no_alloc = false, .ctx = &read}));
  ASSERT_NE(from, nullptr);
  const std::unique_ptr<ggml_context, Free> tensors(read);
  const std::unique_ptr<gguf_context, Free> to(gguf_init_empty());
  gguf_set_kv(to.get(), from.get());
  if (keys) keys(to.get());
  for (std::int64_t i = 0; i < gguf_get_n_tensors(from.get()); ++i) {
    ggml_tensor* each = ggml_get_tensor(read, gguf_get_tensor_name(from.get(), i));
    if (!tensor || tensor(each)) gguf_add_tensor(to.get(), each);
  }
  ASSERT_TRUE(gguf_write_to_file(to.get(), path.c_str(), false));
}

// A header with one tensor, byte for byte, for what libgguf refuses to write.
struct Raw {
  std::string bytes;

  template <class T>
  Raw& put(T value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  Raw& text(const std::string& value) {
    put<std::uint64_t>(value.size());
    bytes += value;
    return *this;
  }
};

struct RawTensor {
  std::string name = "token_embd.weight";
  std::vector<std::int64_t> shape = {32};
  std::int32_t type = GGML_TYPE_F32;
  std::uint32_t alignment = 32;
  std::size_t data = 128;
};

std::string raw_file(const RawTensor& tensor) {
  Raw raw;
  raw.bytes = "GGUF";
  raw.put<std::uint32_t>(3).put<std::int64_t>(1).put<std::int64_t>(1);
  raw.text("general.alignment").put<std::uint32_t>(GGUF_TYPE_UINT32).put(tensor.alignment);
  raw.text(tensor.name).put(static_cast<std::uint32_t>(tensor.shape.size()));
  for (const std::int64_t size : tensor.shape) raw.put(size);
  raw.put(tensor.type).put<std::uint64_t>(0);
  if (tensor.alignment > 0 && tensor.alignment <= 4096) {
    raw.bytes.resize((raw.bytes.size() + tensor.alignment - 1) / tensor.alignment * tensor.alignment);
  }
  return raw.bytes + std::string(tensor.data, '\0');
}

void expect_error(const std::string& path, const std::string& part) {
  const Result<Weights> weights = load_weights(path);
  ASSERT_FALSE(weights) << part;
  EXPECT_THAT(weights.error().message, StartsWith('"' + path + "\": "));
  EXPECT_THAT(weights.error().message, HasSubstr(part));
  EXPECT_EQ(weights.error().message.find('\n'), std::string::npos);
}

void expect_raw_error(const RawTensor& tensor, const std::string& part) {
  const Scratch file;
  write_bytes(file.path(), raw_file(tensor));
  expect_error(file.path(), part);
}

void expect_error_after(const EditKeys& keys, const EditTensor& tensor, const std::string& part) {
  const Scratch file;
  write_tiny_model({}, file.path());
  rewrite(file.path(), keys, tensor);
  expect_error(file.path(), part);
}

TEST(Gguf, ReadsTheTinyModel) {
  const Scratch file;
  write_tiny_model({.tied = false}, file.path());
  const Result<Weights> weights = load_weights(file.path());
  ASSERT_TRUE(weights) << weights.error().message;
  const Architecture& a = weights->architecture;
  EXPECT_EQ(a.name, "llama");
  EXPECT_EQ(a.layers, 2);
  EXPECT_EQ(a.heads, 4);
  EXPECT_EQ(a.kv_heads, 2);
  EXPECT_EQ(a.head_dim, 16);
  EXPECT_EQ(a.vocabulary, 128);
  EXPECT_EQ(a.context, 4096);
  EXPECT_EQ(a.windows, (std::vector<int>{0, 0}));
  ASSERT_EQ(a.ropes.size(), 1U);
  EXPECT_EQ(a.ropes[0].kind, RopeKind::interleaved);
  EXPECT_EQ(a.ropes[0].magnitude, 1);
  ASSERT_EQ(a.ropes[0].angles.size(), 8U);
  EXPECT_NEAR(a.ropes[0].angles[4], 0.01, 1e-9);
  ASSERT_EQ(weights->layers.size(), 2U);
  EXPECT_EQ(weights->layers[1].down.columns, 96);
  EXPECT_EQ(weights->layers[1].k.rows, 32);
  EXPECT_FALSE(weights->layers[0].q_bias);
  EXPECT_NE(weights->head.data, weights->embedding.data);
  EXPECT_EQ(weights->info.name, "tiny");
  EXPECT_EQ(weights->info.weight_bytes, weights->info.parameters * 4);
  EXPECT_EQ(weights->info.file_bytes, std::filesystem::file_size(file.path()));
}

TEST(Gguf, InspectsWithTheSameFacts) {
  const Scratch file;
  write_tiny_model({.type = GGML_TYPE_Q4_1}, file.path());
  const Result<Inspection> inspection = inspect(file.path());
  ASSERT_TRUE(inspection) << inspection.error().message;
  const Result<ModelInfo>& info = inspection->model;
  ASSERT_TRUE(info) << info.error().message;
  EXPECT_EQ(info->path, file.path());
  EXPECT_EQ(info->embedding, 64);
  EXPECT_EQ(info->rope_base, 10000);
  ASSERT_EQ(info->tensors.size(), 20U);
  EXPECT_EQ(info->tensors[0].name, "token_embd.weight");
  EXPECT_EQ(info->tensors[0].type, "q4_1");
  EXPECT_EQ(info->tensors[0].shape, (std::vector<std::int64_t>{64, 128}));
  EXPECT_EQ(info->tensors[0].bytes, 64U * 128 / 32 * 20);
}

// The value is part of every JSON document and must stay.
TEST(Gguf, TheHashIsOfTheSizeTheFirstAndTheLastMebibyte) {
  const Scratch file;
  write_tiny_model({}, file.path());
  std::ifstream in(file.path(), std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(in)), {});
  const auto hash_of_parts = [](const std::string& size, const std::string& first, const std::string& last) {
    std::uint64_t hash = 14695981039346656037U;
    for (const char byte : size + first + last) hash = (hash ^ static_cast<unsigned char>(byte)) * 1099511628211U;
    return fmt::format("{:016x}", hash);
  };
  const auto size_of = [](std::uint64_t size) { return std::string(reinterpret_cast<const char*>(&size), 8); };
  EXPECT_EQ(inspect(file.path())->file.hash, hash_of_parts(size_of(bytes.size()), bytes, bytes));
  bytes.resize(bytes.size() + (3 << 20), 'x');
  write_bytes(file.path(), bytes);
  EXPECT_EQ(inspect(file.path())->file.hash,
            hash_of_parts(size_of(bytes.size()), bytes.substr(0, 1 << 20), bytes.substr(bytes.size() - (1 << 20))));
}

TEST(Gguf, TheHashIsOfTheFileThatWasOpenedWhateverLiesThereNow) {
  const Scratch file;
  write_tiny_model({}, file.path());
  const std::string before = inspect(file.path())->file.hash;
  const auto model = Model::load(file.path()).value();
  std::filesystem::remove(file.path());
  EXPECT_EQ(model->info().hash, before);
}

TEST(Gguf, InspectsWhatCannotBeLoaded) {
  const Scratch file;
  write_tiny_model({}, file.path());
  rewrite(file.path(), [](gguf_context* g) { gguf_set_val_str(g, "general.architecture", "mamba"); }, {});
  const Result<Inspection> inspection = inspect(file.path());
  ASSERT_TRUE(inspection) << inspection.error().message;
  EXPECT_EQ(inspection->file.architecture, "mamba");
  EXPECT_EQ(inspection->file.tensors[0].name, "token_embd.weight");
  ASSERT_FALSE(inspection->model);
  EXPECT_EQ(inspection->model.error().message, load_weights(file.path()).error().message);
}

TEST(Gguf, SharesTheEmbeddingWhereTied) {
  const Scratch file;
  write_tiny_model({}, file.path());
  const Result<Weights> weights = load_weights(file.path());
  ASSERT_TRUE(weights) << weights.error().message;
  EXPECT_EQ(weights->head.data, weights->embedding.data);
}

class WeightType : public testing::TestWithParam<ggml_type> {};

TEST_P(WeightType, Loads) {
  const Scratch file;
  const TinyModel model{.type = GetParam()};
  write_tiny_model(model, file.path());
  const Result<Weights> weights = load_weights(file.path());
  ASSERT_TRUE(weights) << weights.error().message;
  EXPECT_EQ(weights->layers[0].gate.type, GetParam());
  EXPECT_EQ(weights->architecture.embedding, rounded(model).embedding);
}

// Not iq1 and the larger iq2: ggml takes many seconds to set up their quantisation.
INSTANTIATE_TEST_SUITE_P(, WeightType,
                         testing::Values(GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_Q4_0, GGML_TYPE_Q4_1,
                                         GGML_TYPE_Q5_0, GGML_TYPE_Q5_1, GGML_TYPE_Q8_0, GGML_TYPE_Q2_K, GGML_TYPE_Q3_K,
                                         GGML_TYPE_Q4_K, GGML_TYPE_Q5_K, GGML_TYPE_Q6_K, GGML_TYPE_IQ2_XXS,
                                         GGML_TYPE_IQ3_XXS, GGML_TYPE_IQ3_S, GGML_TYPE_IQ4_NL, GGML_TYPE_IQ4_XS,
                                         GGML_TYPE_TQ1_0, GGML_TYPE_TQ2_0, GGML_TYPE_MXFP4),
                         [](const auto& each) { return std::string(ggml_type_name(each.param)); });

TEST(GgufPath, RefusesWhatIsNoFile) {
  expect_error("/nonexistent/model.gguf", "No such file");
  expect_error(std::filesystem::temp_directory_path(), "is a directory");
  const Scratch pipe("pipe");
  ASSERT_EQ(mkfifo(pipe.path().c_str(), 0600), 0);
  expect_error(pipe.path(), "is no regular file");
  const Scratch empty("empty");
  write_bytes(empty.path(), "");
  expect_error(empty.path(), "is empty");
  const Result<GgufFile> nul = GgufFile::open(std::string("a\0b", 3));
  ASSERT_FALSE(nul);
  EXPECT_THAT(nul.error().message, HasSubstr("NUL"));
}

TEST(GgufPath, RefusesOtherFormats) {
  const Scratch file;
  write_bytes(file.path(), "PK\3\4 and so on, and so on");
  expect_error(file.path(), "not a GGUF file");
  write_bytes(file.path(), "GGUF");
  expect_error(file.path(), "not a GGUF file");
}

TEST(GgufHeader, RefusesAlignment) {
  for (const std::uint32_t alignment : {0U, 1U, 2U, 8U, 24U, 33U, 0xffffffffU}) {
    expect_raw_error({.alignment = alignment}, "alignment");
  }
}

TEST(GgufHeader, RefusesTensorsOutsideTheFile) {
  expect_raw_error({.data = 127}, "'token_embd.weight' (128 bytes) reaches past the end");
  expect_raw_error({.data = 0}, "token_embd.weight");
  expect_raw_error({.shape = {std::int64_t{1} << 40}}, "token_embd.weight");
}

TEST(GgufHeader, RefusesShapesThatWrapAround) {
  expect_raw_error({.shape = {std::int64_t{1} << 60}, .type = GGML_TYPE_Q4_0}, "token_embd.weight");
  expect_raw_error({.shape = {std::int64_t{1} << 62}}, "token_embd.weight");
  expect_raw_error({.shape = {std::int64_t{1} << 31, std::int64_t{1} << 31, 2}}, "token_embd.weight");
}

TEST(GgufHeader, RefusesDimensionsWithoutElements) {
  expect_raw_error({.shape = {0}}, "token_embd.weight");
  expect_raw_error({.shape = {32, 0}}, "token_embd.weight");
  expect_raw_error({.shape = {32, -1}}, "token_embd.weight");
  expect_raw_error({.shape = {1, 1, 1, 1, 1}}, "token_embd.weight");
}

TEST(GgufHeader, RefusesNames) {
  expect_raw_error({.name = ""}, "the name of tensor 0");
  expect_raw_error({.name = std::string("\0hidden", 7)}, "the name of tensor 0");
  expect_raw_error({.name = "a\nb"}, "the name of tensor 0");
  expect_raw_error({.name = std::string(64, 'x')}, "name");
}

TEST(GgufHeader, RefusesBrokenTypes) {
  expect_raw_error({.type = 4}, "token_embd.weight");  // q4_2, removed
  expect_raw_error({.type = 1000}, "token_embd.weight");
  expect_raw_error({.type = -1}, "token_embd.weight");
  expect_raw_error({.shape = {33}, .type = GGML_TYPE_Q4_0}, "token_embd.weight");
}

TEST(GgufHeader, EveryTruncationIsAnError) {
  const Scratch file;
  write_tiny_model({.layers = 1}, file.path());
  std::ifstream in(file.path(), std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(in), {}};
  for (std::size_t size = 0; size < bytes.size(); size += size < 3000 ? 7 : 4096) {
    write_bytes(file.path(), bytes.substr(0, size));
    expect_error(file.path(), "");
  }
}

TEST(GgufKeys, AreTyped) {
  const Scratch file;
  write_tiny_model({}, file.path());
  rewrite(file.path(), [](gguf_context* g) {
    gguf_set_val_u64(g, "huge", std::numeric_limits<std::uint64_t>::max());
    gguf_set_val_i8(g, "small", -3);
    gguf_set_val_bool(g, "truth", true);
  });
  const Result<GgufFile> gguf = GgufFile::open(file.path());
  ASSERT_TRUE(gguf) << gguf.error().message;
  EXPECT_EQ(gguf->integer("small").value(), -3);
  EXPECT_EQ(gguf->number("small").value(), -3);
  EXPECT_EQ(gguf->string("general.name").value(), "tiny");
  EXPECT_THAT(gguf->integer("huge").error().message, HasSubstr("'huge'"));
  EXPECT_THAT(gguf->integer("none").error().message, HasSubstr("'none' is missing"));
  EXPECT_THAT(gguf->string("small").error().message, HasSubstr("'small' has type i8"));
  EXPECT_THAT(gguf->number("truth").error().message, HasSubstr("'truth' has type bool"));
  EXPECT_THAT(gguf->number("general.name").error().message, HasSubstr("'general.name'"));
}

TEST(Architecture, RefusesCounts) {
  for (const char* key :
       {"block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count",
        "attention.head_count_kv", "attention.key_length", "attention.value_length", "rope.dimension_count"}) {
    const std::string name = std::string("llama.") + key;
    for (const std::int64_t value : {std::int64_t{0}, std::int64_t{-1}, std::numeric_limits<std::int64_t>::max()}) {
      expect_error_after([&](gguf_context* g) { gguf_set_val_i64(g, name.c_str(), value); }, {}, name);
    }
    expect_error_after([&](gguf_context* g) { gguf_set_val_str(g, name.c_str(), "two"); }, {}, name);
    const std::int32_t both[] = {2, 2};
    expect_error_after([&](gguf_context* g) { gguf_set_arr_data(g, name.c_str(), GGUF_TYPE_INT32, both, 2); }, {},
                       name);
  }
}

TEST(Architecture, RefusesNumbers) {
  for (const char* key : {"llama.attention.layer_norm_rms_epsilon", "llama.rope.freq_base", "llama.rope.scaling.factor",
                          "llama.rope.scaling.attn_factor"}) {
    for (const float value : {0.0F, -1.0F, std::nanf(""), std::numeric_limits<float>::infinity()}) {
      expect_error_after([&](gguf_context* g) { gguf_set_val_f32(g, key, value); }, {}, key);
    }
  }
}

TEST(Architecture, RefusesWhatDoesNotFit) {
  const auto set = [](const char* key, std::uint32_t value) {
    return [=](gguf_context* g) { gguf_set_val_u32(g, key, value); };
  };
  expect_error_after(set("llama.attention.head_count_kv", 3), {}, "llama.attention.head_count_kv");
  expect_error_after(set("llama.attention.value_length", 8), {}, "llama.attention.value_length");
  expect_error_after(set("llama.rope.dimension_count", 15), {}, "llama.rope.dimension_count");
  expect_error_after(set("llama.rope.dimension_count", 18), {}, "llama.rope.dimension_count");
  expect_error_after(set("llama.expert_count", 8), {}, "llama.expert_count");
  expect_error_after(set("llama.block_count", 3), {}, "blk.2.attn_norm.weight");
  expect_error_after(set("llama.block_count", 1), {}, "blk.1.");
  expect_error_after(set("llama.feed_forward_length", 97), {}, "has shape 64x96 instead of 64x97");
}

TEST(Architecture, RefusesOthers) {
  expect_error_after(
      [](gguf_context* g) { gguf_set_val_str(g, "general.architecture", "mamba"); }, {},
      "architecture 'mamba' is not supported; supported: llama, qwen2, qwen3, gemma3, phi3, gpt2, gptneox, opt");
  expect_error_after([](gguf_context* g) { gguf_set_val_str(g, "general.architecture", "a\nb"); }, {}, "'a?b'");
  expect_error_after([](gguf_context* g) { gguf_remove_key(g, "general.architecture"); }, {}, "general.architecture");
  expect_error_after([](gguf_context* g) { gguf_set_val_str(g, "llama.rope.scaling.type", "dynamic"); }, {},
                     "key 'llama.rope.scaling.type' is 'dynamic'; supported: none, linear, yarn, longrope");
}

// What a family needs is not optional, and what it lacks is not read.
TEST(Architecture, RefusesTensorsOfOtherFamilies) {
  const auto expect_error_without = [](const char* architecture, const char* name) {
    const Scratch file;
    write_tiny_model({.architecture = architecture, .kv_heads = 4, .context = 64}, file.path());
    rewrite(file.path(), {}, [&](ggml_tensor* t) { return std::strcmp(t->name, name) != 0; });
    expect_error(file.path(), fmt::format("tensor '{}' is missing", name));
  };
  expect_error_without("qwen2", "blk.1.attn_k.bias");
  expect_error_without("qwen3", "blk.0.attn_q_norm.weight");
  expect_error_without("gemma3", "blk.1.post_ffw_norm.weight");
  expect_error_without("phi3", "blk.0.attn_qkv.weight");
  expect_error_without("gpt2", "position_embd.weight");
  expect_error_without("gpt2", "blk.0.attn_qkv.bias");
  expect_error_without("gptneox", "output_norm.bias");
  expect_error_without("opt", "blk.1.ffn_up.bias");
  const Scratch file;
  write_tiny_model({}, file.path());
  rewrite(file.path(), {}, [](ggml_tensor* t) {
    if (std::strcmp(t->name, "blk.1.ffn_norm.weight") == 0) ggml_set_name(t, "blk.1.post_ffw_norm.weight");
    return true;
  });
  expect_error(file.path(), "blk.1.ffn_norm.weight' is missing");
}

TEST(Architecture, RefusesWhatWouldChangeTheResult) {
  for (const char* key : {"llama.attn_logit_softcapping", "llama.attention.scale"}) {
    expect_error_after([=](gguf_context* g) { gguf_set_val_f32(g, key, 2); }, {}, key);
  }
  const bool pattern[] = {true, false};
  const auto refuse = [](const char* architecture, const EditKeys& keys, const char* part) {
    const Scratch file;
    write_tiny_model({.architecture = architecture, .kv_heads = 4, .context = 64, .window = 8}, file.path());
    rewrite(file.path(), keys);
    expect_error(file.path(), part);
  };
  refuse(
      "gemma3",
      [&](gguf_context* g) {
        gguf_set_arr_data(g, "gemma3.attention.sliding_window_pattern", GGUF_TYPE_BOOL, pattern, 2);
      },
      "'gemma3.attention.sliding_window_pattern' is an array");
  refuse(
      "gemma3", [](gguf_context* g) { gguf_set_val_i32(g, "gemma3.attention.sliding_window", -1); },
      "gemma3.attention.sliding_window");
  refuse(
      "gptneox", [](gguf_context* g) { gguf_set_val_u32(g, "gptneox.use_parallel_residual", 1); },
      "'gptneox.use_parallel_residual' has type u32, not bool");
  refuse(
      "opt", [](gguf_context* g) { gguf_set_val_u32(g, "opt.context_length", 65); },
      "'position_embd.weight' has shape 64x66 instead of 64x67");
}

// The second RoPE table is that of the layers with a window, and it is not scaled.
TEST(Windows, EverySixthLayerOfGemmaHasNone) {
  const Scratch file;
  write_tiny_model({.architecture = "gemma3", .layers = 7, .window = 8}, file.path());
  rewrite(file.path(), [](gguf_context* g) { gguf_set_val_f32(g, "gemma3.rope.scaling.factor", 8); });
  const Result<Weights> weights = load_weights(file.path());
  ASSERT_TRUE(weights) << weights.error().message;
  const Architecture& a = weights->architecture;
  EXPECT_EQ(a.windows, (std::vector<int>{8, 8, 8, 8, 8, 0, 8}));
  EXPECT_EQ(a.rope_of(5), 0);
  EXPECT_EQ(a.rope_of(6), 1);
  EXPECT_NEAR(a.ropes[0].angles[4], std::pow(1e6, -0.5) / 8, 1e-9);
  EXPECT_NEAR(a.ropes[1].angles[4], 0.01, 1e-9);
}

TEST(Windows, APatternOfOneMeansNone) {
  const Scratch file;
  write_tiny_model({.architecture = "gemma3", .window = 8}, file.path());
  rewrite(file.path(), [](gguf_context* g) { gguf_set_val_u32(g, "gemma3.attention.sliding_window_pattern", 1); });
  const Result<Weights> weights = load_weights(file.path());
  ASSERT_TRUE(weights) << weights.error().message;
  EXPECT_EQ(weights->architecture.windows, (std::vector<int>{0, 0}));
  EXPECT_EQ(weights->architecture.ropes.size(), 1U);
}

std::vector<double> angles_after(const EditKeys& keys, TinyModel model = {}) {
  const Scratch file;
  write_tiny_model(model, file.path());
  rewrite(file.path(), keys);
  const Result<Weights> weights = load_weights(file.path());
  EXPECT_TRUE(weights) << weights.error().message;
  return weights ? weights->architecture.ropes[0].angles : std::vector<double>(8);
}

TEST(Rope, ScalesLinearly) {
  const auto angles = angles_after([](gguf_context* g) { gguf_set_val_f32(g, "llama.rope.scaling.factor", 4); });
  EXPECT_NEAR(angles[0], 0.25, 1e-12);
  EXPECT_NEAR(angles[4], 0.0025, 1e-12);
}

TEST(Rope, IgnoresTheFactorWhereTheTypeIsNone) {
  const auto angles = angles_after([](gguf_context* g) {
    gguf_set_val_f32(g, "llama.rope.scaling.factor", 4);
    gguf_set_val_str(g, "llama.rope.scaling.type", "none");
  });
  EXPECT_EQ(angles[0], 1);
}

TEST(Rope, DividesByTheFactorsOfLlama3) {
  const auto angles = angles_after({}, {.rope_factors = true});
  EXPECT_EQ(angles[0], 1);
  EXPECT_NEAR(angles[4], 0.01 / 3, 1e-12);
}

// Fast pairs keep their angle, slow ones are divided by the factor, and the magnitude grows.
TEST(Rope, BlendsForYarn) {
  const Scratch file;
  write_tiny_model({}, file.path());
  rewrite(file.path(), [](gguf_context* g) {
    gguf_set_val_str(g, "llama.rope.scaling.type", "yarn");
    gguf_set_val_f32(g, "llama.rope.scaling.factor", 4);
    gguf_set_val_u32(g, "llama.rope.scaling.original_context_length", 2048);
  });
  const Result<Weights> weights = load_weights(file.path());
  ASSERT_TRUE(weights) << weights.error().message;
  const std::vector<double>& angles = weights->architecture.ropes[0].angles;
  EXPECT_EQ(angles[0], 1);
  EXPECT_NEAR(angles[7], std::pow(10000.0, -14.0 / 16) / 4, 1e-12);
  EXPECT_NEAR(weights->architecture.ropes[0].magnitude, 1 + 0.1 * std::log(4.0), 1e-6);
}

TEST(Rope, DividesByTheShortFactorsOfLongrope) {
  const auto angles = angles_after({}, {.original_context = 2048});
  EXPECT_EQ(angles[0], 1);
  EXPECT_NEAR(angles[4], 0.01 / 1.4, 1e-9);
}

TEST(Rope, RefusesLongropeWithoutItsFactors) {
  expect_error_after(
      [](gguf_context* g) {
        gguf_set_val_str(g, "llama.rope.scaling.type", "longrope");
        gguf_set_val_u32(g, "llama.rope.scaling.original_context_length", 2048);
      },
      {}, "tensor 'rope_factors_short.weight' is missing");
}

TEST(Weights, RefusesMissingTensors) {
  for (const char* name : {"token_embd.weight", "output_norm.weight", "blk.1.attn_q.weight", "blk.1.ffn_down.weight"}) {
    expect_error_after(
        {}, [&](ggml_tensor* t) { return std::strcmp(t->name, name) != 0; }, name);
  }
}

TEST(Weights, RefusesTensorsItDoesNotKnow) {
  expect_error_after(
      {},
      [](ggml_tensor* t) {
        if (std::strcmp(t->name, "blk.0.attn_q.weight") == 0) ggml_set_name(t, "blk.0.attn_qkv.weight");
        return true;
      },
      "blk.0.attn_q.weight");
  const Scratch file;
  write_tiny_model({.tied = false}, file.path());
  rewrite(file.path(), {}, [](ggml_tensor* t) {
    if (std::strcmp(t->name, "output.weight") == 0) ggml_set_name(t, "rope_factors_long.weight");
    return true;
  });
  expect_error(file.path(), "rope_factors_long.weight");
}

// Changes one tensor of the tiny model.
EditTensor edit(const char* name, const std::function<void(ggml_tensor*)>& change) {
  return [=](ggml_tensor* t) {
    if (std::strcmp(t->name, name) == 0) change(t);
    return true;
  };
}

TEST(Weights, RefusesTypesItCannotMultiply) {
  expect_error_after({}, edit("blk.1.ffn_up.weight", [](ggml_tensor* t) { t->type = GGML_TYPE_I32; }),
                     "'blk.1.ffn_up.weight' has type i32");
  expect_error_after({},
                     edit("blk.0.ffn_norm.weight",
                          [](ggml_tensor* t) {
                            t->type = GGML_TYPE_F16;
                            t->nb[0] = 2;
                            t->nb[1] = t->nb[2] = t->nb[3] = 128;
                          }),
                     "'blk.0.ffn_norm.weight' has type f16; only f32");
}

TEST(Weights, RefusesShapes) {
  expect_error_after({},
                     edit("blk.1.attn_k.weight",
                          [](ggml_tensor* t) {
                            std::swap(t->ne[0], t->ne[1]);
                            t->nb[1] = t->nb[0] * static_cast<std::size_t>(t->ne[0]);
                          }),
                     "'blk.1.attn_k.weight' has shape 32x64 instead of 64x32");
}

TEST(Weights, RefusesDamagedBlocks) {
  for (const ggml_type type : {GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_Q4_1, GGML_TYPE_Q8_0, GGML_TYPE_MXFP4}) {
    const Scratch file;
    write_tiny_model({.type = type}, file.path());
    rewrite(file.path(), {}, edit("blk.1.ffn_down.weight", [](ggml_tensor* t) {
              std::memset(static_cast<char*>(t->data) + t->nb[1], 0xff, t->nb[0]);
            }));
    expect_error(file.path(), "'blk.1.ffn_down.weight' is damaged: row 1");
    EXPECT_TRUE(inspect(file.path())->model);
  }
}

}  // namespace
}  // namespace a2sf
