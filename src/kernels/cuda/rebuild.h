// Moves what a sequence's heads retain into memory of another size.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/cuda/head.h"

namespace a2sf::cuda {

struct RebuildLaunch {
  DeviceSequence from, to;  // the heads of `to` have their rules and no tokens
  int heads, head_dim;      // [layer][kv head]
  bool f16;
};

// Enqueues: copies every token to the slot of its rank in order of position, or to its own in a ring. There must be
// room.
cudaError_t rebuild(const RebuildLaunch& launch, cudaStream_t stream);

// Enqueues: heads that evict by score let their lowest scores go until `budget` tokens are left, after the row at
// `now`. `rules`: [head], whose budgets and keep rules count.
cudaError_t evict_excess(const DeviceSequence& sequence, const DeviceHead* rules, int heads, int head_dim, bool f16,
                         std::int64_t now, cudaStream_t stream);

}  // namespace a2sf::cuda
