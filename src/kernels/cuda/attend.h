// Attention, scores and eviction of a step on the GPU, one thread block for each KV head of each sequence: its rows one
// after the other, as section 3 of docs/architecture.md says. Exact whatever the policy; fast paths are measured
// against it.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/head.h"

namespace a2sf::cuda {

// RopeTable in the GPU's memory.
struct DeviceRope {
  const double* angles;  // radians per position
  int pairs;
  float magnitude;
  bool interleaved;
};

// Norm in the GPU's memory; no weight: none.
struct DeviceNorm {
  const float *weight, *bias;
  float epsilon;
  bool subtracts_mean;
};

struct AttendLaunch {
  const DeviceSpan* spans;
  DeviceFailure* failures;  // [span]
  int span_count;
  int layer, heads, kv_heads, head_dim, window;
  float scale;
  DeviceRope rope;
  DeviceNorm q_norm, k_norm;  // of every head
  const float *q, *k, *v;     // [row][heads * head_dim], [row][kv_heads * head_dim]
  float* out;
  float* scratch;  // attend_scratch_floats() of it
  int most_slots;  // that a head of these sequences uses
};

std::size_t attend_scratch_floats(int span_count, int heads, int kv_heads, int most_slots);

// Enqueues.
cudaError_t attend(const AttendLaunch& launch, cudaStream_t stream);

}  // namespace a2sf::cuda
