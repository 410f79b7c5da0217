#include "support/tiny_model.h"

#include <gguf.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <filesystem>
#include <memory>
#include <random>
#include <stdexcept>
#include <vector>

namespace a2sf {
namespace {

struct Free {
  void operator()(gguf_context* gguf) const { gguf_free(gguf); }
  void operator()(ggml_context* ggml) const { ggml_free(ggml); }
};

int round_up(int value, std::int64_t block) { return static_cast<int>((value + block - 1) / block * block); }

class Writer {
 public:
  explicit Writer(const TinyModel& model)
      : model_(model),
        random_(model.seed),
        gguf_(gguf_init_empty()),
        ggml_(ggml_init({.mem_size = ggml_tensor_overhead() * static_cast<std::size_t>(model.layers * 9 + 4),
                         .mem_buffer = nullptr,
                         .no_alloc = true})) {}

  void keys() {
    gguf_set_val_str(gguf_.get(), "general.architecture", "llama");
    gguf_set_val_str(gguf_.get(), "general.name", "tiny");
    gguf_set_val_str(gguf_.get(), "tokenizer.ggml.model", "none");
    count("llama.vocab_size", model_.vocabulary);
    count("llama.block_count", model_.layers);
    count("llama.context_length", 4096);
    count("llama.embedding_length", model_.embedding);
    count("llama.feed_forward_length", model_.feed_forward);
    count("llama.attention.head_count", model_.heads);
    count("llama.attention.head_count_kv", model_.kv_heads);
    count("llama.attention.key_length", model_.head_dim);
    count("llama.attention.value_length", model_.head_dim);
    count("llama.rope.dimension_count", model_.head_dim);
    gguf_set_val_f32(gguf_.get(), "llama.rope.freq_base", 10000.0F);
    gguf_set_val_f32(gguf_.get(), "llama.attention.layer_norm_rms_epsilon", 1e-5F);
  }

  void tensors() {
    matrix("token_embd.weight", model_.embedding, model_.vocabulary);
    norm("output_norm.weight", model_.embedding);
    if (!model_.tied) matrix("output.weight", model_.embedding, model_.vocabulary);
    if (model_.rope_factors) rope_factors();
    for (int i = 0; i < model_.layers; ++i) layer("blk." + std::to_string(i) + ".");
  }

  void write(const std::string& path) const {
    if (!gguf_write_to_file(gguf_.get(), path.c_str(), false)) throw std::runtime_error("cannot write " + path);
  }

 private:
  void layer(const std::string& prefix) {
    const int query = model_.heads * model_.head_dim;
    const int key = model_.kv_heads * model_.head_dim;
    norm(prefix + "attn_norm.weight", model_.embedding);
    matrix(prefix + "attn_q.weight", model_.embedding, query);
    matrix(prefix + "attn_k.weight", model_.embedding, key);
    matrix(prefix + "attn_v.weight", model_.embedding, key);
    matrix(prefix + "attn_output.weight", query, model_.embedding);
    norm(prefix + "ffn_norm.weight", model_.embedding);
    matrix(prefix + "ffn_gate.weight", model_.embedding, model_.feed_forward);
    matrix(prefix + "ffn_up.weight", model_.embedding, model_.feed_forward);
    matrix(prefix + "ffn_down.weight", model_.feed_forward, model_.embedding);
  }

  void count(const char* key, int value) { gguf_set_val_u32(gguf_.get(), key, static_cast<std::uint32_t>(value)); }

  // Columns keep the size of what goes through them: 1 / sqrt(columns).
  void matrix(const std::string& name, int columns, int rows) {
    const auto values = normal(columns * rows, 0, 1 / std::sqrt(static_cast<float>(columns)));
    const ggml_type type = columns % ggml_blck_size(model_.type) == 0 ? model_.type : GGML_TYPE_F32;
    ggml_tensor* tensor = ggml_new_tensor_2d(ggml_.get(), type, columns, rows);
    std::vector<std::byte> data(ggml_nbytes(tensor));
    const std::vector<float> importance(static_cast<std::size_t>(columns), 1.0F);
    ggml_quantize_chunk(type, values.data(), data.data(), 0, rows, columns,
                        ggml_quantize_requires_imatrix(type) ? importance.data() : nullptr);
    add(tensor, name, std::move(data));
  }

  void norm(const std::string& name, int size) { vector(name, normal(size, 1, 0.1F)); }

  // As llama 3 has them: 1 for fast pairs, more for slow ones.
  void rope_factors() {
    std::vector<float> factors;
    for (int pair = 0; pair < model_.head_dim / 2; ++pair)
      factors.push_back(pair < 2 ? 1.0F : 1.0F + 0.5F * static_cast<float>(pair));
    vector("rope_freqs.weight", factors);
  }

  void vector(const std::string& name, const std::vector<float>& values) {
    ggml_tensor* tensor = ggml_new_tensor_1d(ggml_.get(), GGML_TYPE_F32, static_cast<std::int64_t>(values.size()));
    const auto* bytes = reinterpret_cast<const std::byte*>(values.data());
    add(tensor, name, std::vector<std::byte>(bytes, bytes + values.size() * sizeof(float)));
  }

  void add(ggml_tensor* tensor, const std::string& name, std::vector<std::byte> data) {
    tensor->data = data_.emplace_back(std::move(data)).data();
    ggml_set_name(tensor, name.c_str());
    gguf_add_tensor(gguf_.get(), tensor);
  }

  // Not std::normal_distribution, whose numbers differ between standard libraries: the sum of 12 uniform ones.
  std::vector<float> normal(int size, float mean, float deviation) {
    std::vector<float> values(static_cast<std::size_t>(size));
    for (float& value : values) {
      float sum = -6;
      for (int i = 0; i < 12; ++i) sum += static_cast<float>(random_() >> 8) / 16777216.0F;
      value = mean + deviation * sum;
    }
    return values;
  }

  TinyModel model_;
  std::mt19937 random_;
  std::unique_ptr<gguf_context, Free> gguf_;
  std::unique_ptr<ggml_context, Free> ggml_;
  std::deque<std::vector<std::byte>> data_;  // until the file is written
};

}  // namespace

TinyModel rounded(TinyModel model) {
  model.embedding = round_up(model.embedding, ggml_blck_size(model.type));
  model.feed_forward = round_up(model.feed_forward, ggml_blck_size(model.type));
  return model;
}

std::string write_tiny_model(const TinyModel& model, const std::string& path) {
  Writer writer(rounded(model));
  writer.keys();
  writer.tensors();
  writer.write(path);
  return path;
}

std::string temporary_path(const std::string& name) {
  return std::filesystem::temp_directory_path() / ("a2sf-test-" + std::to_string(getpid()) + "-" + name);
}

}  // namespace a2sf
