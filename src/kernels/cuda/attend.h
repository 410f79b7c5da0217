// Attention, scores and eviction of a step on the GPU, as section 3 of docs/architecture.md says.
#pragma once

#include "kernels/cuda/device.h"
#include "kernels/cuda/head.h"
#include "kernels/cuda/tensors.h"

namespace a2sf::cuda {

// Which heads there are among those of a step: some that score, others that attend_rows() takes, those that it does
// not.
struct AttendedHeads {
  bool scoring, other, slow;
};

// Whether attend_rows() takes a head: caches of f32 are there for tests, oracles to compare with.
inline constexpr int kMostFastDim = 256;
A2SF_HOST_DEVICE inline bool is_fast(RetentionMode mode, bool f16, int head_dim) {
  return f16 && mode != RetentionMode::oracle && head_dim <= kMostFastDim;
}

struct AttendLaunch {
  const DeviceSpan* spans;
  DeviceFailure* failures;  // [span]
  int span_count;
  int layer, heads, kv_heads, head_dim;
  float scale;
  DeviceRope rope;
  const float2* rotations;    // [row][pair], of find_rotations()
  DeviceNorm q_norm, k_norm;  // of every head
  const float *q, *k, *v;     // [row][heads * head_dim], [row][kv_heads * head_dim]
  float* out;
  float* scratch;    // attend_scratch_floats() of it
  int* arrivals;     // [layer, if scores wait][span][KV head]: 0, and 0 again after each row
  bool scores_wait;  // of one row: until score_layers(), for which each layer has scratch of its own
  int most_slots;    // that a head of these sequences uses
  int most_rows;     // of a span
  AttendedHeads heads_are;
};

// What attention works in, for each KV head of each sequence: what its partitions found, and what scores are made of.
A2SF_HOST_DEVICE inline std::int64_t output_floats(const AttendLaunch& launch) {
  return std::int64_t{most_partitions(launch.most_slots)} * (launch.heads / launch.kv_heads) * padded(launch.head_dim);
}
A2SF_HOST_DEVICE inline std::int64_t unit_floats(const AttendLaunch& launch) {
  const std::int64_t group = launch.heads / launch.kv_heads, blocks = most_partitions(launch.most_slots);
  return (4 * blocks + (group + 1) * launch.most_slots + 2 * blocks * group + 3) / 4 * 4;
}
// `layers`: that wait for their scores, else 1.
inline std::size_t attend_scratch_floats(const AttendLaunch& launch, int layers) {
  return static_cast<std::size_t>(launch.span_count) * static_cast<std::size_t>(launch.kv_heads) *
         static_cast<std::size_t>(output_floats(launch) + layers * unit_floats(launch));
}

// All of them enqueue.
cudaError_t attend(const AttendLaunch& launch, const Queue& queue);
// One thread block for each KV head of each sequence, its rows one after the other: every head and policy. What the
// fast way is tested against.
cudaError_t attend_plain(const AttendLaunch& launch, const Queue& queue);

// Parts of attend(): heads that are is_fast(), and those that are not.
cudaError_t attend_rows(const AttendLaunch& launch, const Queue& queue);
cudaError_t attend_slow_heads(const AttendLaunch& launch, const Queue& queue);
// After a row's attention: A, and what goes. Heads of mode score.
cudaError_t score_row(const AttendLaunch& launch, int row, const Queue& queue);
// The same for all `layers` that wait for it, beside what the queue's stream does next: until join().
cudaError_t score_layers(const AttendLaunch& launch, int layers, const Queue& queue);

}  // namespace a2sf::cuda
