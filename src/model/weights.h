// The shape and the weights of a model: what a GGUF file of a supported architecture holds, mapped, or random ones.
#pragma once

#include <a2sf/model.h>

#include <optional>

#include "kernels/backend.h"
#include "model/gguf.h"

namespace a2sf {

enum class RopeKind { none, interleaved, halves };

// The rotation that some layers share.
struct Rope {
  RopeKind kind = RopeKind::none;
  double base = 0;
  std::vector<double> angles;  // [pairs]: radians per position, frequency factors and scaling applied
  float magnitude = 1;         // scales cosine and sine (yarn)
};

// An architecture is data. Everything the forward pass asks.
struct Architecture {
  std::string name;
  int layers, heads, kv_heads, head_dim, embedding, feed_forward, vocabulary;
  std::int64_t context;
  NormKind norm_kind;
  float norm_epsilon;
  Activation activation;
  float attention_scale;
  float embedding_scale;        // of a token's embedding
  float logit_softcap;          // 0: none
  bool parallel_residual;       // attention and feed-forward network read the same input
  bool norms_follow;            // norms are of the sum after a sublayer, not of what it reads
  bool learned_positions;       // an embedding of each position, for `context` of them, is added to the token's
  int position_offset;          // row of position 0 in their table
  bool longrope;                // the angles are those of its original context only
  std::int64_t most_positions;  // a sequence cannot be longer; 0: no limit
  std::vector<int> windows;     // [layer]: the sliding window, 0: none
  std::vector<Rope> ropes;      // at least one, that of layers without a window; the last one is of those with one

  int rope_of(int layer) const {
    return windows[static_cast<std::size_t>(layer)] > 0 ? static_cast<int>(ropes.size()) - 1 : 0;
  }
};

// Views of a layer's tensors; what an architecture lacks is empty.
struct LayerWeights {
  WeightView q, k, v, output, gate, up, down;
  WeightView q_bias, k_bias, v_bias, output_bias, up_bias, down_bias;
  Norm q_norm, k_norm;  // of every head
  // Of what a sublayer reads, of what it adds, and of the sum.
  Norm attention_norm, attention_output_norm, attention_sum_norm;
  Norm feed_forward_norm, feed_forward_output_norm, feed_forward_sum_norm;
};

struct Weights {
  std::optional<GgufFile> file;  // owns the mapping; none of a random model
  Architecture architecture;
  WeightView embedding, head;          // the same where they are tied
  WeightView positions;                // where they are learned
  WeightView project_in, project_out;  // between the width of the embedding and that of the layers, where they differ
  Norm output_norm;
  std::vector<LayerWeights> layers;
  ModelInfo info;
};

// The matrices that are multiplied with, each once; the embedding is only looked up in.
std::vector<const WeightView*> matrices(const Weights& weights);

struct RoleOfWeight {
  WeightView* weight;
  WeightRole role;
};
// Everything that a backend loads: a tensor that has two roles is there twice, under views of their own.
std::vector<RoleOfWeight> all_weights(Weights& weights);

// Maps the file and checks it: every tensor there, of the right shape, inside the file, blocks valid.
Result<Weights> load_weights(const std::string& path);

// "SHAPE:TYPE" as Model::random() takes it: an architecture, and views of tensors that have no values yet.
Result<Weights> shape_weights(const std::string& shape);

// The facts of an architecture; those of a file are left as they are.
void describe(const Architecture& architecture, ModelInfo& info);

// Before this, ggml's products of several types silently return 0.
void initialise_ggml();
// Can ggml turn a row into floats and multiply it?
bool can_multiply(ggml_type type);

}  // namespace a2sf
