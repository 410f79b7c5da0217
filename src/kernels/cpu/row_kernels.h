// The vector kernels of attention, of norms and of rows of logits.
#pragma once

#include <cstdint>
#include <span>

#include "cache/sequence_cache.h"
#include "kernels/cpu/isa.h"

namespace a2sf::cpu {

// A matrix of depth x columns inside a chunk: its keys (depth: dim, columns: slots) or its values (depth: slots,
// columns: dim). Columns come in tiles of kTile; the steps count elements.
struct ChunkMatrix {
  const std::byte* data;
  KvType type;
  int depth, columns;
  std::ptrdiff_t depth_step, tile_step;
  const std::byte* next;  // what is read after it and prefetched meanwhile; nullptr: nothing
};

// A norm over plain memory.
struct NormValues {
  bool centred;  // the mean is subtracted first
  float epsilon;
  const float *weight, *bias;
};

// How a row's probabilities p update the scores A, and which tokens may be evicted then.
struct ScoreUpdate {
  float alpha, forgets;      // forgets: 1 - alpha
  bool raised;               // p^1.5 is added instead of p
  bool weighted;             // the victim has the lowest A w, w being the slot's kValueWeight; else the lowest A
  float threshold;           // p below it adds nothing
  int classes;               // where the ClassNumbers of a slot begin; -1: it has none
  std::int32_t first, last;  // positions that may be evicted
};

// All counts of slots are multiples of kTile; dims are padded to a multiple of kTile, but for head_dim.
struct RowKernels {
  // As norm_row of kernels/rows.h, its reference. Without a bias: nullptr. `in` and `out` may be the same.
  void (*norm)(const NormValues& norm, const float* in, int columns, float* out);
  // Rotates `pairs` pairs of dimensions in place: (2i, 2i + 1), or (i, i + pairs).
  void (*rotate)(float* head, const float* cosine, const float* sine, int pairs, bool interleaved);
  // Writes a token's key and value into a slot of the chunk.
  void (*store)(const Chunk& chunk, KvType type, int slot, int dim, int head_dim, const float* key, const float* value);
  // out[row][column] = factor * sum over k of rows[row][k] * matrix[k][column], for `count` rows.
  void (*multiply)(const float* rows, std::ptrdiff_t row_step, int count, const ChunkMatrix& matrix, float factor,
                   float* out, std::ptrdiff_t out_step);
  // The least and the largest position; a free slot counts as -1.
  void (*bounds)(const std::int32_t* positions, int slots, std::int32_t& least, std::int32_t& most);
  // Whether all of x are finite.
  bool (*finite)(const float* x, int count);
  // Masks logits: x = the lowest float wherever the position is not in [first, last]; first is at least 0, so that free
  // slots are masked.
  void (*mask)(float* x, const std::int32_t* positions, int slots, std::int32_t first, std::int32_t last);
  // Softmax numerators of logits to base 2: x = 2^(x - largest). `largest` is the largest x, but at least half
  // the lowest float, so that masked logits become 0. Returns the sum of the numerators, NaN if an x was not finite.
  float (*exponentials)(float* x, int slots, float& largest);
  // scores = alpha * scores + sum over the group of p, where p = factors[g] * x[g], or of p^1.5, if p >= threshold;
  // where slots have ClassNumbers, alpha = max(0, 1 - forgets * forgetting), and the sum is multiplied by the gain.
  // Returns the lowest new score (times its weight) among the tokens that may be evicted, infinity if there are none.
  float (*score)(const float* x, std::ptrdiff_t step, int group, const float* factors, const Chunk& chunk, int slots,
                 const ScoreUpdate& update);
  // Of the slots with this score (times weight) whose tokens may be evicted, the one of the oldest; -1: none.
  int (*find_score)(const Chunk& chunk, int slots, float score, const ScoreUpdate& update);
  // Of logits x to base 2, [query head][slot], and the log sums of their row to base 2: a query would give a slot,
  // beside what its row holds, p = 1 / (1 + 2^(log_sum - x)). out[slot] = the sum over the group of p, or of p^1.5.
  void (*additions)(const float* x, std::ptrdiff_t step, const float* log_sums, int group, bool raised, int slots,
                    float* out);
  // out[dim] = sum over i of factors[i * factor_step] * x[i * x_step][dim]
  void (*add_up)(const float* x, std::ptrdiff_t x_step, const float* factors, std::ptrdiff_t factor_step, int count,
                 int dim, float* out);
  // As log_sum_exp of kernels/logits.h, its reference: the sum has a relative error of 1e-6 at most.
  double (*log_sum_exp)(std::span<const float> logits);
};

// Defined for avx512, avx2 and portable; kernels_of() picks.
template <Isa isa>
const RowKernels& row_kernels();

}  // namespace a2sf::cpu
