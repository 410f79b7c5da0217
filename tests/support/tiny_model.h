// Random models of a few hundred kilobytes, of every architecture, valid for libllama too where it knows that.
#pragma once

#include <ggml.h>

#include <string>
#include <vector>

namespace a2sf {

struct TinyModel {
  std::string architecture = "llama";
  int layers = 2, heads = 4, kv_heads = 2, head_dim = 16, embedding = 64, feed_forward = 96, vocabulary = 128;
  ggml_type type = GGML_TYPE_F32;  // of the matrices; norms are f32
  unsigned seed = 1;
  bool tied = true;
  bool rope_factors = false;
  int original_context = 0;  // above 0: longrope
  int context = 4096;
  int window = 0;             // gemma3, phi3: the sliding window
  bool norms_follow = false;  // opt: as the model of 350 million parameters has them,
  int narrow_embedding = 0;   // and its embedding, narrower than the layers
  bool parallel = true;       // gptneox
};

// What can be written, and of these what libllama knows.
inline const std::vector<std::string>& tiny_architectures() {
  static const std::vector<std::string> all = {"llama", "qwen2", "qwen3", "gemma3", "phi3", "gpt2", "gptneox", "opt"};
  return all;
}

// The sizes that are written: embedding and feed_forward rounded up to the block size of the type. Where heads *
// head_dim is no multiple of it, attn_output alone is f32.
TinyModel rounded(TinyModel model);

// Writes the file and returns its path. Throws std::runtime_error if that fails.
std::string write_tiny_model(const TinyModel& model, const std::string& path);

// Sets `count` floats of an f32 tensor of a file, from index `first` on, to a value. Throws std::runtime_error if that
// fails.
void overwrite_floats(const std::string& path, const std::string& tensor, std::size_t first, std::size_t count,
                      float value);

// In the directory for temporary files, another for every process.
std::string temporary_path(const std::string& name);

}  // namespace a2sf
