// What the blocks of a KV head leave for each other while a row runs, in the GPU's memory.
#pragma once

#include <cfloat>

#include "kernels/cuda/attend.h"
#include "kernels/cuda/block.cuh"
#include "kernels/cuda/victim.cuh"

namespace a2sf::cuda {

struct Workspace {
  float* outputs;         // [partition][group][stride]: of one layer after the other
  Candidate* candidates;  // [block that scores]
  float* logits;          // [group][most slots]: to base 2; -FLT_MAX: the row does not see the slot
  float* given;           // [most slots]: for who wants it
  float* maxima;          // [partition][group]
  float* sums;            // [partition][group]: of 2^(logit - maximum)
  int group, stride, most_slots;

  // `unit`: the span's KV head of all layers that have scratch of their own.
  __device__ Workspace(const AttendLaunch& launch, std::int64_t unit)
      : group(launch.heads / launch.kv_heads), stride(padded(launch.head_dim)), most_slots(launch.most_slots) {
    const std::int64_t units = std::int64_t{launch.span_count} * launch.kv_heads;
    outputs = launch.scratch + unit % units * output_floats(launch);
    const std::int64_t blocks = most_partitions(most_slots);
    float* const own = launch.scratch + units * output_floats(launch) + unit * unit_floats(launch);
    candidates = reinterpret_cast<Candidate*>(own);
    logits = own + 4 * blocks;
    given = logits + std::int64_t{group} * most_slots;
    maxima = given + most_slots;
    sums = maxima + blocks * group;
  }
  // From dim `i` on, which is a multiple of 4.
  __device__ float4& output(int partition, int g, int i) const {
    return reinterpret_cast<float4*>(outputs)[((std::int64_t{partition} * group + g) * stride + i) / 4];
  }
  // What all partitions found, of four dims from `i` on in each lane of a warp; of no meaning from `stride` on.
  __device__ float4 output_of_all(int g, int i, int partitions) const;
  __device__ float& logit(int g, int slot) const { return logits[static_cast<std::int64_t>(g) * most_slots + slot]; }
};
static_assert(sizeof(Candidate) == 4 * sizeof(float));

// The softmax of a query head is 2^(logit - maximum) * factor.
struct Denominator {
  float maximum, factor;

  __device__ float probability(float logit) const { return exp2f(logit - maximum) * factor; }
};

// By one warp; lane i gets what the outputs of partition i count for as well. All lanes get the denominator.
struct Shares {
  Denominator denominator;
  float of_partition;

  __device__ Shares(const Workspace& found, int g, int partitions) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const bool exists = lane < partitions;
    const float maximum = exists ? found.maxima[lane * found.group + g] : -FLT_MAX;
    const float sum = exists ? found.sums[lane * found.group + g] : 0;
    denominator.maximum = over_warp(maximum, Largest());
    of_partition = exp2f(maximum - denominator.maximum);
    denominator.factor = 1 / over_warp(sum * of_partition, Sum());
    of_partition *= denominator.factor;
  }
};
static_assert(kMostBlocks <= kWarp);

// Outputs are asked for before it is known what they count for.
__device__ inline float4 Workspace::output_of_all(int g, int i, int partitions) const {
  constexpr int kAtOnce = 4;
  float4 outputs[kAtOnce], all{};
  const auto ask_from = [&](int first) {
#pragma unroll
    for (int a = 0; a < kAtOnce; ++a)
      if (first + a < partitions && i < stride) outputs[a] = output(first + a, g, i);
  };
  ask_from(0);
  const Shares shares(*this, g, partitions);
  for (int first = 0; first < partitions; first += kAtOnce) {
    if (first > 0) ask_from(first);
#pragma unroll
    for (int a = 0; a < kAtOnce; ++a) {
      if (first + a < partitions) add_scaled(all, __shfl_sync(kAllLanes, shares.of_partition, first + a), outputs[a]);
    }
  }
  return all;
}

}  // namespace a2sf::cuda
