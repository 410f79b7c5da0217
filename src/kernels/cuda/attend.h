// Attention, scores and eviction of a step on the GPU, as section 3 of docs/architecture.md says.
#pragma once

#include "kernels/cuda/device.h"
#include "kernels/cuda/head.h"
#include "kernels/cuda/tensors.h"

namespace a2sf::cuda {

struct AttendLaunch {
  const DeviceSpan* spans;
  DeviceFailure* failures;  // [span]
  int span_count;
  int layer, heads, kv_heads, head_dim, window;
  float scale;
  DeviceRope rope;
  const float2* rotations;    // [row][pair], of find_rotations()
  DeviceNorm q_norm, k_norm;  // of every head
  const float *q, *k, *v;     // [row][heads * head_dim], [row][kv_heads * head_dim]
  float* out;
  float* scratch;  // attend_scratch_floats() of it
  int* arrivals;   // [span][KV head]: 0, and 0 again after each row
  int most_slots;  // that a head of these sequences uses
  bool f16, f32;   // whether there are caches of that format
};

inline constexpr int kPartition = 128;  // slots that a block attends to
A2SF_HOST_DEVICE inline int partitions_of(int slots) { return (slots + kPartition - 1) / kPartition; }

// What attention works in, for each KV head of each sequence.
A2SF_HOST_DEVICE inline std::int64_t unit_floats(int group, int head_dim, int most_slots) {
  const std::int64_t slots = most_slots, partitions = partitions_of(most_slots);
  return (group + 1) * slots + partitions * (head_dim + 2) * group;
}
A2SF_HOST_DEVICE inline std::int64_t unit_floats(const AttendLaunch& launch) {
  return unit_floats(launch.heads / launch.kv_heads, launch.head_dim, launch.most_slots);
}
inline std::size_t attend_scratch_floats(const AttendLaunch& launch) {
  return static_cast<std::size_t>(launch.span_count) * static_cast<std::size_t>(launch.kv_heads) *
         static_cast<std::size_t>(unit_floats(launch));
}

// All of them enqueue. One thread block for each KV head of each sequence, its rows one after the other: every head and
// policy. What the fast way is tested against.
cudaError_t attend_plain(const AttendLaunch& launch, const Queue& queue);
// Heads that are no oracles. `rows`: the most of a span.
cudaError_t attend_rows(const AttendLaunch& launch, int rows, const Queue& queue);
// Oracles alone, plainly.
cudaError_t attend_oracles(const AttendLaunch& launch, const Queue& queue);

}  // namespace a2sf::cuda
