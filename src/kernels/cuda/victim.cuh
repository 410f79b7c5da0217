// The choice of one victim of a KV head, by the threads of a block together.
#pragma once

#include "kernels/cuda/block.cuh"
#include "kernels/cuda/slots.cuh"

namespace a2sf::cuda {

// The candidate that goes first, of those that one thread has seen.
struct Candidate {
  std::uint64_t order = ~std::uint64_t{0};  // order_of() it
  int slot = kNoSlot;

  // A token, as select_victims() of retention.h does.
  __device__ void consider(const DeviceHead& head, std::int64_t now, int at, std::int32_t position, float score) {
    if (position < head.first || position > now - head.recent || order_of(score, position) >= order) return;
    order = order_of(score, position);
    slot = at;
  }
  // The first of all threads' candidates, in all threads. `reduction`: shared, a number of 8 bytes for each warp.
  __device__ Candidate first_of_block(void* reduction) const {
    Candidate first;
    first.order = over_block(order, Least(), reduction);
    if (first.order == Candidate{}.order) return first;
    first.slot = over_block(order == first.order ? slot : INT32_MAX, Least(), reduction);
    return first;
  }
};

// What a token's place in the order follows from.
template <class Element>
__device__ float rank_of(const Slots<Element>& slots, const DeviceHead& head, int slot, float score) {
  return head.value_weight ? score * slots.weight(slot) : score;
}

// The slot that goes after the row at `now`; kNoSlot: none may. All threads of a block get it.
template <class Element>
__device__ int choose_victim(const Slots<Element>& slots, const DeviceHead& head, std::int64_t now, void* reduction) {
  Candidate own;
  for (int slot = static_cast<int>(threadIdx.x); slot < head.used; slot += static_cast<int>(blockDim.x))
    own.consider(head, now, slot, slots.position(slot), rank_of(slots, head, slot, slots.score(slot)));
  return own.first_of_block(reduction).slot;
}

}  // namespace a2sf::cuda
