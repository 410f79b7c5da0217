// The hyper-parameters of a GGUF file, checked; no tensor but the embedding's shape and the RoPE factors is looked at.
#pragma once

#include <string_view>

#include "model/weights.h"

namespace a2sf {

// Which vectors beside the matrices a file must have; those of attention it may always have.
enum class Biases { optional, attention_input, all };

// What tells the supported architectures apart beside their hyper-parameters.
struct Family {
  const char* name;
  NormKind norm = NormKind::rms;
  Activation activation = Activation::silu;
  RopeKind rope = RopeKind::halves;
  Biases biases = Biases::optional;
  bool gated = true;               // a gate beside the feed-forward network's first matrix
  bool fused_qkv = false;          // one matrix holds the rows of query, key and value,
  bool fused_gate = false;         // one those of gate and up
  bool qk_norm = false;            // a norm of every head's query and key
  bool output_norms = false;       // a norm of what each sublayer adds
  bool scaled_embedding = false;   // by the square root of its width
  bool parallel_residual = false;  // where the file does not say
  bool learned_positions = false;
  int position_offset = 0;
  int window_period = 0;  // where there are sliding windows: every period-th layer has none; 0: every layer has one
};

Result<Family> find_family(const GgufFile& file);
const Family& family_named(std::string_view name);  // of the table
Result<Architecture> read_architecture(const GgufFile& file, const Family& family);

// An error about a file: every message starts with its path.
tl::unexpected<Error> fail_in(const GgufFile& file, ErrorKind kind, const std::string& message);

}  // namespace a2sf
