// What the blocks of a KV head leave for each other while a row runs, in the GPU's memory.
#pragma once

#include <cfloat>

#include "kernels/cuda/attend.h"
#include "kernels/cuda/block.cuh"
#include "kernels/cuda/victim.cuh"

namespace a2sf::cuda {

struct Workspace {
  Candidate* candidates;  // [block that scores]
  float* logits;          // [group][most slots]: to base 2; -FLT_MAX: the row does not see the slot
  float* maxima;          // [partition][group]
  float* sums;            // [partition][group]: of 2^(logit - maximum)
  float* outputs;         // [partition][group][dim]
  int group, most_slots;

  __device__ Workspace(const AttendLaunch& launch, std::int64_t unit)
      : group(launch.heads / launch.kv_heads), most_slots(launch.most_slots) {
    const std::int64_t blocks = most_partitions(most_slots);
    float* const first = launch.scratch + unit * unit_floats(launch);
    candidates = reinterpret_cast<Candidate*>(first);
    logits = first + 4 * blocks;
    maxima = logits + std::int64_t{group} * most_slots;
    sums = maxima + blocks * group;
    outputs = sums + blocks * group;
  }
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

}  // namespace a2sf::cuda
