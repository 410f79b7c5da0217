// The vector kernels of attention and of the small row operations, one table per instruction set.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cache/sequence_cache.h"

namespace a2sf::cpu {

struct Lowest {
  float score;  // infinity if nothing may go
  std::int32_t position;
  int slot;  // in the chunk
};

// All counts of slots are multiples of kTile; dims are padded to a multiple of kTile; group is at most kMaxGroup.
inline constexpr int kMaxGroup = 4;

struct RowKernels {
  // logits[g * stride + slot] = scale * q[g] . key[slot]
  void (*logits)(const Chunk& chunk, KvType type, int slots, int dim, int group, const float* q, float scale,
                 float* logits, std::int64_t stride);
  // x = exp(x - largest); returns the sum. x of -infinity becomes 0.
  float (*exponentials)(float* x, int slots, float largest);
  float (*maximum)(const float* x, int slots);
  // p[g] *= inverse[g]; scores = alpha * scores + sum over g of p[g]
  void (*score)(float* p, std::int64_t stride, int group, const float* inverse, int slots, float alpha, float* scores);
  void (*multiply)(float* x, float factor, int count);
  // out[g][dim] = sum over slots of p[g * stride + slot] * value[slot]
  void (*values)(const Chunk& chunk, KvType type, int slots, int dim, int group, const float* p, std::int64_t stride,
                 float* out);
  // The lowest score among positions in [first, last]; of equal scores, the oldest.
  Lowest (*lowest)(const Chunk& chunk, int slots, std::int32_t first, std::int32_t last);
  void (*silu_multiply)(float* gate, const float* up, std::int64_t count);
};

// "avx2", "avx512": the names this machine can run, best first.
std::vector<std::string> supported_isas();
// nullptr if this machine cannot run it.
const RowKernels* find_row_kernels(const std::string& isa);

}  // namespace a2sf::cpu
