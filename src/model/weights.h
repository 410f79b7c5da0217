// What a GGUF file of a supported architecture holds: its shape and its weights, mapped.
#pragma once

#include <a2sf/model.h>

#include "kernels/weight.h"
#include "model/gguf.h"

namespace a2sf {

enum class RopeKind { interleaved, halves };

// An architecture is data. Everything the forward pass asks.
struct Architecture {
  std::string name;
  int layers, heads, kv_heads, head_dim, embedding, feed_forward, vocabulary;
  std::int64_t context;
  float norm_epsilon;
  RopeKind rope_kind;
  int rope_dims;                    // leading dimensions of a head that are rotated; even
  std::vector<double> rope_angles;  // [rope_dims / 2]: radians per position, frequency factors and scaling applied
  float rope_magnitude;             // scales cosine and sine (yarn); 1 otherwise
};

struct LayerWeights {
  WeightView attention_norm, q, k, v, output, feed_forward_norm, gate, up, down;
  WeightView q_bias, k_bias, v_bias, output_bias;  // empty where absent
};

struct Weights {
  GgufFile file;  // owns the mapping
  Architecture architecture;
  WeightView embedding, output_norm, head;  // head is the embedding where they are tied
  std::vector<LayerWeights> layers;
  ModelInfo info;
};

// The matrices that are multiplied with, each once; the embedding is only looked up in.
std::vector<WeightView*> matrices(Weights& weights);

// Maps the file and checks it: every tensor there, of the right shape, inside the file, blocks valid.
Result<Weights> load_weights(const std::string& path);

}  // namespace a2sf
