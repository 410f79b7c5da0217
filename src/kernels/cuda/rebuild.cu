#include "kernels/cuda/rebuild.h"

#include "kernels/cuda/victim.cuh"

namespace a2sf::cuda {
namespace {

constexpr int kThreads = 256;

template <class Element>
class Rebuild {
 public:
  __device__ Rebuild(const RebuildLaunch& launch, int head, void* scratch)
      : launch_(launch),
        old_(launch.from.heads[head]),
        rebuilt_(launch.to.heads[head]),
        from_(launch.from, head, launch.head_dim),
        to_(launch.to, head, launch.head_dim),
        scratch_(scratch) {}

  __device__ void run() {
    int used = 0;
    for (int slot = 0; slot < old_.used; ++slot) {
      if (from_.position(slot) >= 0) used = max(used, target_of(slot) + 1);
    }
    // In a ring there may be slots between the tokens.
    for (int slot = static_cast<int>(threadIdx.x); slot < used; slot += kThreads) to_.position(slot) = -1;
    __syncthreads();
    for (int slot = 0; slot < old_.used; ++slot) {
      if (from_.position(slot) >= 0) copy(slot, target_of(slot));
    }
    if (threadIdx.x != 0) return;
    rebuilt_.used = used;
    rebuilt_.free = kNoSlot;
    rebuilt_.occupied = old_.occupied;
    rebuilt_.values_seen = old_.values_seen;
  }

 private:
  __device__ int target_of(int slot) const {
    const std::int32_t position = from_.position(slot);
    if (rebuilt_.is_ring) return static_cast<int>(position % rebuilt_.most);
    int before = 0;
    for (int other = static_cast<int>(threadIdx.x); other < old_.used; other += kThreads)
      before += from_.position(other) >= 0 && from_.position(other) < position ? 1 : 0;
    return over_block(before, Sum(), scratch_);
  }

  __device__ void copy(int slot, int target) const {
    for (int i = static_cast<int>(threadIdx.x); i < launch_.head_dim; i += kThreads) {
      to_.key(target)[i] = from_.key(slot)[i];
      to_.value(target)[i] = from_.value(slot)[i];
    }
    if (threadIdx.x != 0) return;
    to_.position(target) = from_.position(slot);
    to_.score(target) = from_.score(slot);
    if (launch_.from.mean_values != nullptr) to_.weight(target) = from_.weight(slot);
  }

  const RebuildLaunch& launch_;
  const DeviceHead& old_;
  DeviceHead& rebuilt_;
  Slots<Element> from_, to_;
  void* scratch_;  // shared
};

template <class Element>
__global__ void __launch_bounds__(kThreads) rebuild_heads(const __grid_constant__ RebuildLaunch launch) {
  __shared__ double scratch[kThreads / kWarp];
  Rebuild<Element>(launch, static_cast<int>(blockIdx.x), scratch).run();
}

template <class Element>
__global__ void __launch_bounds__(kThreads)
    evict_from_heads(const DeviceSequence sequence, const DeviceHead* rules, int head_dim, std::int64_t now) {
  __shared__ double scratch[kThreads / kWarp];
  const auto index = static_cast<int>(blockIdx.x);
  DeviceHead& state = sequence.heads[index];
  DeviceHead head = rules[index];
  head.used = state.used;
  head.occupied = state.occupied;
  const Slots<Element> slots(sequence, index, head_dim);
  while (head.mode == RetentionMode::score && head.occupied > head.budget) {
    const int victim = choose_victim(slots, head, now, scratch);
    if (victim < 0) break;
    if (threadIdx.x == 0) {
      if (sequence.log != nullptr) {
        sequence.log[static_cast<std::int64_t>(index) * sequence.log_capacity + state.logged++] = {
            slots.position(victim), static_cast<std::int32_t>(now), slots.score(victim), 0};
      }
      slots.position(victim) = free_before(state.free);
      state.free = victim;
    }
    --head.occupied;
    __syncthreads();
  }
  if (threadIdx.x == 0) state.occupied = head.occupied;
}

}  // namespace

cudaError_t rebuild(const RebuildLaunch& launch, cudaStream_t stream) {
  const auto kernel = launch.f16 ? rebuild_heads<__half> : rebuild_heads<float>;
  kernel<<<static_cast<unsigned>(launch.heads), kThreads, 0, stream>>>(launch);
  return cudaGetLastError();
}

cudaError_t evict_excess(const DeviceSequence& sequence, const DeviceHead* rules, int heads, int head_dim, bool f16,
                         std::int64_t now, cudaStream_t stream) {
  const auto kernel = f16 ? evict_from_heads<__half> : evict_from_heads<float>;
  kernel<<<static_cast<unsigned>(heads), kThreads, 0, stream>>>(sequence, rules, head_dim, now);
  return cudaGetLastError();
}

}  // namespace a2sf::cuda
