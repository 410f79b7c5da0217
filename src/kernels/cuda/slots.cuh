// The slots of one KV head as kernels see them. A chunk holds keys [slot][dim], values [slot][dim], scores [slot],
// value weights [slot] where values are weighed, positions [slot]; it takes as many bytes as on the host.
#pragma once

#include <cuda_fp16.h>

#include "kernels/cuda/head.h"

namespace a2sf::cuda {

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(__half x) { return __half2float(x); }
__device__ inline void store(float& to, float x) { to = x; }
// Finite values stay finite.
__device__ inline void store(__half& to, float x) { to = __float2half_rn(fminf(fmaxf(x, -kMostF16), kMostF16)); }

// Element: __half or float.
template <class Element>
class Slots {
 public:
  __device__ Slots(const DeviceSequence& sequence, int head, int head_dim)
      : chunks_(sequence.chunks + static_cast<std::int64_t>(head) * sequence.chunks_per_head),
        most_(sequence.heads[head].most),
        dim_(padded(head_dim)),
        weighted_(sequence.mean_values != nullptr) {}

  __device__ Element* key(int slot) const { return elements(slot) + slot % kChunk * dim_; }
  __device__ Element* value(int slot) const { return elements(slot) + (count(slot) + slot % kChunk) * dim_; }
  __device__ float& score(int slot) const { return floats(slot)[slot % kChunk]; }
  // The distance of the token's value to the mean of all before (Accumulate::value_weight).
  __device__ float& weight(int slot) const { return floats(slot)[count(slot) + slot % kChunk]; }
  __device__ std::int32_t& position(int slot) const {  // negative: free
    auto* const positions = reinterpret_cast<std::int32_t*>(floats(slot) + (weighted_ ? 2 : 1) * count(slot));
    return positions[slot % kChunk];
  }

 private:
  __device__ int count(int slot) const { return slots_of_chunk(most_, slot / kChunk); }
  __device__ Element* elements(int slot) const { return reinterpret_cast<Element*>(chunks_[slot / kChunk]); }
  __device__ float* floats(int slot) const {
    return reinterpret_cast<float*>(elements(slot) + 2 * static_cast<std::int64_t>(count(slot)) * dim_);
  }

  std::byte* const* chunks_;
  std::int64_t most_;
  int dim_;
  bool weighted_;
};

}  // namespace a2sf::cuda
