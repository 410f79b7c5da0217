// What kernels know of a KV head, a sequence and a step: plain data in the GPU's memory.
#pragma once

#include <a2sf/hook.h>
#include <a2sf/policy.h>

#include <cstddef>
#include <cstdint>

#include "cache/sequence_cache.h"
#include "kernels/cuda/formats.h"

namespace a2sf::cuda {

// The rule of one KV head, and which of its slots hold tokens.
struct DeviceHead {
  RetentionMode mode;
  int budget;
  int first, recent;  // the earliest position that may go (after sinks and pins), and how many of the newest stay
  float alpha, power, threshold;
  bool value_weight;
  int window;         // the layer's sliding one; 0: none
  bool is_ring;       // SlotPlan::Kind::ring
  std::int64_t most;  // slots that the plan has
  // From here on kernels write.
  int used, occupied;
  int free;         // the first free slot below `used`; negative: none (free_before())
  int values_seen;  // in the mean of the head's values
  int logged;       // entries of the log
};

// A sequence's heads are [layer][kv head].
struct DeviceSequence {
  DeviceHead* heads;
  std::byte* const* chunks;  // [head][chunks_per_head]
  int chunks_per_head;
  float* mean_values;  // [head][head dim]; nullptr: values are not weighed
  Eviction* log;       // [head][log_capacity]; nullptr: nobody asked
  int log_capacity;
};

struct DeviceSpan {
  DeviceSequence sequence;
  int first_row, rows;
  std::int64_t first_position;
  std::int64_t block;
  bool in_prompt;    // under block = prompt: nothing goes,
  bool prompt_ends;  // but after its last row
  bool f16;          // format of the cache; else f32
};

// Why a sequence failed. The first to report is heard.
struct DeviceFailure {
  int cause;  // FailureCause + 1; 0: none
  int layer, kv_head;
  std::int64_t position;
};

// The position of a free slot says which one is next: a chain, as on the host. In a ring they are no chain.
A2SF_HOST_DEVICE inline std::int32_t free_before(int next) { return -2 - next; }
A2SF_HOST_DEVICE inline int next_free(std::int32_t position) { return -2 - position; }
inline constexpr int kNoSlot = -1;

// A key or a value in its slot: zeros follow its end.
A2SF_HOST_DEVICE inline int padded(int head_dim) { return (head_dim + kTile - 1) / kTile * kTile; }

// Slots of a chunk, the last of which may be shorter than the others.
A2SF_HOST_DEVICE inline int slots_of_chunk(std::int64_t most, int chunk) {
  const std::int64_t left = most - std::int64_t{chunk} * kChunk;
  return left >= kChunk ? kChunk : static_cast<int>((left + kTile - 1) / kTile * kTile);
}

// A head's slots are at most so many partitions, for as many blocks or fewer.
inline constexpr int kPartition = 64, kMostBlocks = 32;
struct Partitions {
  int slots, count;  // of each; of them
};
A2SF_HOST_DEVICE inline Partitions partitions_of(int slots) {
  const int each = (slots + kPartition * kMostBlocks - 1) / (kPartition * kMostBlocks) * kPartition;
  return {each, (slots + each - 1) / each};
}
// The most that a head takes which has so many slots, or fewer: fewer slots may be more partitions.
A2SF_HOST_DEVICE inline int most_partitions(int slots) {
  const int all = (slots + kPartition - 1) / kPartition;
  return all < kMostBlocks ? all : kMostBlocks;
}

// A2sf's one order of victims as a number, the lowest first: by score, which is not negative, then by position.
A2SF_HOST_DEVICE inline std::uint64_t order_of(float score, std::int32_t position) {
  std::uint32_t bits;
  std::memcpy(&bits, &score, 4);
  return std::uint64_t{bits} << 32 | static_cast<std::uint32_t>(position);
}

}  // namespace a2sf::cuda
