#include "support/tiny_model.h"

#include <gguf.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <filesystem>
#include <fstream>
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
        ggml_(ggml_init({.mem_size = ggml_tensor_overhead() * static_cast<std::size_t>(model.layers * 20 + 10),
                         .mem_buffer = nullptr,
                         .no_alloc = true})) {}

  void keys() {
    gguf_set_val_str(gguf_.get(), "general.architecture", model_.architecture.c_str());
    gguf_set_val_str(gguf_.get(), "general.name", "tiny");
    gguf_set_val_str(gguf_.get(), "tokenizer.ggml.model", "none");
    count("vocab_size", model_.vocabulary);
    count("block_count", model_.layers);
    count("context_length", model_.context);
    count("embedding_length", model_.embedding);
    count("feed_forward_length", model_.feed_forward);
    count("attention.head_count", model_.heads);
    count("attention.head_count_kv", model_.kv_heads);
    count("attention.key_length", model_.head_dim);
    count("attention.value_length", model_.head_dim);
    count("rope.dimension_count", is("gptneox") ? model_.head_dim / 4 : model_.head_dim);
    number("rope.freq_base", is("gemma3") ? 1e6F : 1e4F);
    number(layer_norm() ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon", 1e-5F);
    if (model_.window > 0) count("attention.sliding_window", model_.window);
    if (model_.original_context > 0) {
      count("rope.scaling.original_context_length", model_.original_context);
      number("rope.scaling.attn_factor", 1.19F);
    }
    if (is("gptneox")) boolean("use_parallel_residual", model_.parallel);
    if (is("opt")) boolean("layer_norm_before", !model_.norms_follow);
  }

  void tensors() {
    const int width = model_.narrow_embedding > 0 ? model_.narrow_embedding : model_.embedding;
    matrix("token_embd.weight", width, model_.vocabulary);
    if (model_.narrow_embedding > 0) {
      matrix("project_in.weight", width, model_.embedding);
      matrix("project_out.weight", model_.embedding, width);
    }
    if (is("gpt2")) matrix("position_embd.weight", model_.embedding, model_.context);
    if (is("opt")) matrix("position_embd.weight", model_.embedding, model_.context + 2);
    if (!model_.norms_follow) norm("output_norm", model_.embedding);
    if (!model_.tied || is("gptneox")) matrix("output.weight", width, model_.vocabulary);
    if (model_.rope_factors) rope_factors("rope_freqs.weight", 0.5F);
    if (model_.original_context > 0) {
      rope_factors("rope_factors_short.weight", 0.1F);
      rope_factors("rope_factors_long.weight", 2);
    }
    for (int i = 0; i < model_.layers; ++i) layer("blk." + std::to_string(i) + ".");
  }

  void write(const std::string& path) const {
    if (!gguf_write_to_file(gguf_.get(), path.c_str(), false)) throw std::runtime_error("cannot write " + path);
  }

 private:
  bool is(const char* architecture) const { return model_.architecture == architecture; }
  bool layer_norm() const { return is("gpt2") || is("gptneox") || is("opt"); }
  bool all_biases() const { return layer_norm(); }

  void layer(const std::string& prefix) {
    norm(prefix + "attn_norm", model_.embedding);
    attention(prefix);
    norm(prefix + "ffn_norm", model_.embedding);
    feed_forward(prefix);
    if (!is("gemma3")) return;
    norm(prefix + "post_attention_norm", model_.embedding);
    norm(prefix + "post_ffw_norm", model_.embedding);
  }

  void attention(const std::string& prefix) {
    const int query = model_.heads * model_.head_dim;
    const int key = model_.kv_heads * model_.head_dim;
    const bool biases = all_biases() || is("qwen2");
    if (is("gpt2") || is("gptneox") || is("phi3")) {
      linear(prefix + "attn_qkv", model_.embedding, query + 2 * key, biases);
    } else {
      linear(prefix + "attn_q", model_.embedding, query, biases);
      linear(prefix + "attn_k", model_.embedding, key, biases);
      linear(prefix + "attn_v", model_.embedding, key, biases);
    }
    linear(prefix + "attn_output", query, model_.embedding, all_biases());
    if (!is("qwen3") && !is("gemma3")) return;
    norm(prefix + "attn_q_norm", model_.head_dim);
    norm(prefix + "attn_k_norm", model_.head_dim);
  }

  void feed_forward(const std::string& prefix) {
    if (is("phi3")) {
      linear(prefix + "ffn_up", model_.embedding, 2 * model_.feed_forward, false);
    } else {
      if (!layer_norm()) linear(prefix + "ffn_gate", model_.embedding, model_.feed_forward, false);
      linear(prefix + "ffn_up", model_.embedding, model_.feed_forward, all_biases());
    }
    linear(prefix + "ffn_down", model_.feed_forward, model_.embedding, all_biases());
  }

  std::string key(const char* name) const { return model_.architecture + "." + name; }
  void boolean(const char* name, bool value) { gguf_set_val_bool(gguf_.get(), key(name).c_str(), value); }
  void number(const char* name, float value) { gguf_set_val_f32(gguf_.get(), key(name).c_str(), value); }
  void count(const char* name, int value) {
    gguf_set_val_u32(gguf_.get(), key(name).c_str(), static_cast<std::uint32_t>(value));
  }

  void linear(const std::string& name, int columns, int rows, bool bias) {
    matrix(name + ".weight", columns, rows);
    if (bias) vector(name + ".bias", normal(rows, 0, 0.1F));
  }

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

  void norm(const std::string& name, int size) {
    vector(name + ".weight", normal(size, 1, 0.1F));
    if (layer_norm()) vector(name + ".bias", normal(size, 0, 0.1F));
  }

  // As llama 3 has them: 1 for fast pairs, more for slow ones.
  void rope_factors(const std::string& name, float step) {
    std::vector<float> factors;
    for (int pair = 0; pair < model_.head_dim / 2; ++pair)
      factors.push_back(pair < 2 ? 1.0F : 1.0F + step * static_cast<float>(pair));
    vector(name, factors);
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

void overwrite_floats(const std::string& path, const std::string& tensor, std::size_t first, std::size_t count,
                      float value) {
  const std::unique_ptr<gguf_context, Free> gguf(gguf_init_from_file(path.c_str(), {.no_alloc = true, .ctx = nullptr}));
  const std::int64_t id = gguf == nullptr ? -1 : gguf_find_tensor(gguf.get(), tensor.c_str());
  if (id < 0 || gguf_get_tensor_type(gguf.get(), id) != GGML_TYPE_F32)
    throw std::runtime_error(path + " has no f32 tensor " + tensor);
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekp(static_cast<std::streamoff>(gguf_get_data_offset(gguf.get()) + gguf_get_tensor_offset(gguf.get(), id) +
                                         first * sizeof(float)));
  const std::vector<float> values(count, value);
  file.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(count * sizeof(float)));
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

std::string temporary_path(const std::string& name) {
  return std::filesystem::temp_directory_path() / ("a2sf-test-" + std::to_string(getpid()) + "-" + name);
}

}  // namespace a2sf
