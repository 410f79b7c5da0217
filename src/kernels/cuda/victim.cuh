// The choice of one victim of a KV head, by the threads of a block together.
#pragma once

#include "kernels/cuda/block.cuh"
#include "kernels/cuda/slots.cuh"

namespace a2sf::cuda {

// The slot that goes after the row at `now` (select_victims() of retention.h); negative: none may. All threads get it.
// `scratch`: shared, a number of 8 bytes for each warp.
template <class Element>
__device__ int choose_victim(const Slots<Element>& slots, const DeviceHead& head, std::int64_t now, void* scratch) {
  constexpr std::uint64_t kNobody = ~std::uint64_t{0};
  std::uint64_t own = kNobody;
  int own_slot = 0;
  for (int slot = static_cast<int>(threadIdx.x); slot < head.used; slot += static_cast<int>(blockDim.x)) {
    const std::int32_t position = slots.position(slot);
    if (position < head.first || position > now - head.recent) continue;
    const float score = head.value_weight ? slots.score(slot) * slots.weight(slot) : slots.score(slot);
    if (order_of(score, position) >= own) continue;
    own = order_of(score, position);
    own_slot = slot;
  }
  const std::uint64_t victim = over_block(own, Least(), scratch);
  if (victim == kNobody) return -1;
  return over_block(own == victim ? own_slot : INT32_MAX, Least(), scratch);
}

}  // namespace a2sf::cuda
