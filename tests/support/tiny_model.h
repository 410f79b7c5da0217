// Random llama models of a few hundred kilobytes, valid for libllama too.
#pragma once

#include <ggml.h>

#include <string>

namespace a2sf {

struct TinyModel {
  int layers = 2, heads = 4, kv_heads = 2, head_dim = 16, embedding = 64, feed_forward = 96, vocabulary = 128;
  ggml_type type = GGML_TYPE_F32;  // of the matrices; norms are f32
  unsigned seed = 1;
  bool tied = true;
  bool rope_factors = false;
};

// The sizes that are written: embedding and feed_forward rounded up to the block size of the type. Where heads *
// head_dim is no multiple of it, attn_output alone is f32.
TinyModel rounded(TinyModel model);

// Writes the file and returns its path. Throws std::runtime_error if that fails.
std::string write_tiny_model(const TinyModel& model, const std::string& path);

// In the directory for temporary files, another for every process.
std::string temporary_path(const std::string& name);

}  // namespace a2sf
