// The slots of a KV head while a row runs: which comes next, what goes, and what a row adds to A.
#pragma once

#include "kernels/cuda/attend.h"
#include "kernels/cuda/block.cuh"
#include "kernels/cuda/slots.cuh"
#include "kernels/cuda/victim.cuh"
#include "kernels/span_failures.h"

namespace a2sf::cuda {

// Not inlined: code that is hardly ever run takes its time to fetch all the same where it stands in the way.
__device__ __noinline__ inline float raised(float p, float power) { return powf(p, power); }

// All threads of a block run it together; its members are the same in all of them. The block's y is the span.
template <class Element>
class HeadSlots {
 public:
  static constexpr int kMostWarps = 8;  // of a block
  static constexpr std::size_t kReductionBytes = kMostWarps * sizeof(double);

 protected:
  // `reduction`: shared, kReductionBytes.
  __device__ HeadSlots(const AttendLaunch& launch, const DeviceSpan& span, int layer, int kv_head, int row,
                       double* reduction)
      : launch_(launch),
        span_(span),
        layer_(layer),
        kv_head_(kv_head),
        group_(launch.heads / launch.kv_heads),
        head_(layer * launch.kv_heads + kv_head),
        now_(span.first_position + row),
        state_(span.sequence.heads[head_]),
        slots_(span.sequence, head_, launch.head_dim),
        reduction_(reduction) {}

  __device__ static int thread() { return static_cast<int>(threadIdx.x); }
  __device__ static int threads() { return static_cast<int>(blockDim.x); }

  // Where blocks of this head meet.
  __device__ std::int64_t unit() const {
    const std::int64_t layer = launch_.scores_wait ? layer_ : 0;
    return (layer * launch_.span_count + blockIdx.y) * launch_.kv_heads + kv_head_;
  }

  // The head's counts are what they are in this object.
  __device__ void keep_state() const {
    if (thread() != 0) return;
    in_memory().used = state_.used;
    in_memory().occupied = state_.occupied;
    in_memory().free = state_.free;
    in_memory().values_seen = state_.values_seen;
  }

  // The slot of the row's token; kNoSlot: all are taken.
  __device__ int next_slot() const {
    if (state_.is_ring) return static_cast<int>(now_ % state_.most);
    if (state_.free != kNoSlot) return state_.free;
    return state_.used < state_.most ? state_.used : kNoSlot;
  }

  // The row's token is in next_slot(): from here on its position says so.
  __device__ void admit(int slot) {
    if (state_.is_ring) {
      for (int skipped = state_.used + thread(); skipped < slot; skipped += threads()) slots_.position(skipped) = -1;
    } else if (slot == state_.free) {
      state_.free = next_free(slots_.position(slot));
    }
    state_.used = max(state_.used, slot + 1);
    ++state_.occupied;
    if (span_.sequence.mean_values != nullptr) ++state_.values_seen;
    __syncthreads();  // everybody has read which slot is free next
    if (thread() == 0) slots_.position(slot) = static_cast<std::int32_t>(now_);
    __syncthreads();
  }

  // HeadCache::weigh(), before admit(). `value`: of the row's token.
  __device__ void weigh(int slot, const float* value) const {
    if (span_.sequence.mean_values == nullptr) return;
    const int dim = launch_.head_dim;
    float* const means = span_.sequence.mean_values + static_cast<std::int64_t>(head_) * dim;
    const double seen = state_.values_seen + 1;
    double squares = 0;
    for (int i = thread(); i < dim; i += threads()) {
      const double mean = means[i] + (static_cast<double>(value[i]) - means[i]) / seen;
      squares += (value[i] - mean) * (value[i] - mean);
      means[i] = static_cast<float>(mean);
    }
    squares = reduce(squares, Sum());
    if (thread() == 0) slots_.weight(slot) = static_cast<float>(fmin(sqrt(squares), kMostWeight));
    __syncthreads();
  }

  // Step 4 after a row where must_evict(): what goes, and first of all `victim`. `given(slot)`: what the row gave it.
  template <class Given>
  __device__ void evict(int victim, Given given) {
    while (victim != kNoSlot) {
      leave(victim, given(victim));
      victim = state_.occupied > state_.budget ? choose_victim(slots_, state_, now_, reduction_) : kNoSlot;
    }
  }
  __device__ bool must_evict(int row) const {
    const bool ends_prompt = span_.prompt_ends && row == span_.rows - 1 && span_.in_prompt;
    if (state_.mode != RetentionMode::score || (span_.in_prompt && !ends_prompt)) return false;
    return state_.occupied > state_.budget && (ends_prompt || state_.occupied >= state_.budget + span_.block);
  }

  // Whether the row still sees what was at this position; negative: nothing is.
  __device__ bool sees(std::int32_t position) const {
    return position >= 0 && (state_.window == 0 || position > now_ - state_.window);
  }

  // A slot that a sliding window has left behind; kNoSlot: there is none.
  __device__ int find_expired() const {
    int own = INT32_MAX;
    for_slots([&](int slot) {
      if (slots_.position(slot) >= 0 && !sees(slots_.position(slot))) own = min(own, slot);
    });
    const int expired = reduce(own, Least());
    return expired == INT32_MAX ? kNoSlot : expired;
  }
  // Step 0, which is a token a row at most, but after a change of rules.
  __device__ void expire() {
    if (state_.window == 0) return;
    for (int slot = find_expired(); slot != kNoSlot; slot = find_expired()) leave(slot, 0);
  }

  // The slot is free, and the log knows whose it was. All threads together.
  __device__ void leave(int slot, float probability) {
    if (thread() == 0) {
      if (span_.sequence.log != nullptr) {
        const int entry = in_memory().logged++;
        span_.sequence.log[static_cast<std::int64_t>(head_) * span_.sequence.log_capacity + entry] = {
            slots_.position(slot), static_cast<std::int32_t>(now_), slots_.score(slot), probability};
      }
      slots_.position(slot) = state_.is_ring ? -1 : free_before(state_.free);
    }
    if (!state_.is_ring) state_.free = slot;
    --state_.occupied;
    __syncthreads();
  }

  // What a probability adds to a score.
  __device__ float addition(float p) const {
    if (p < state_.threshold) return 0;
    return state_.power == 1 ? p : raised(p, state_.power);
  }

  // Whether the sequence has, as far as this block can know. All threads together.
  __device__ bool has_failed() const { return __syncthreads_or(thread() == 0 && cause() != 0) != 0; }
  // The first report of a sequence stays.
  __device__ bool fail(FailureCause cause) const {
    DeviceFailure& failure = launch_.failures[blockIdx.y];
    if (thread() != 0 || atomicCAS(&failure.cause, 0, static_cast<int>(cause) + 1) != 0) return false;
    failure.layer = layer_;
    failure.kv_head = kv_head_;
    failure.position = now_;
    return false;
  }

  __device__ DeviceHead& in_memory() const { return span_.sequence.heads[head_]; }

  template <class T, class Operation>
  __device__ T reduce(T x, Operation operation) const {
    return over_block(x, operation, reduction_);
  }
  // Calls function(slot) for every used slot, in some thread.
  template <class Function>
  __device__ void for_slots(Function function) const {
    for (int slot = thread(); slot < state_.used; slot += threads()) function(slot);
  }

  // Whether all other blocks of the head, `blocks` in all, have been here, and the sequence has not failed: then what
  // they wrote is to be seen. Every block comes here, also one without work: so none reads the head's state when the
  // last one has changed it. All threads together.
  __device__ bool is_last_of(int blocks) const {
    __syncthreads();
    bool last = thread() == 0;
    if (last && blocks > 1) {
      int& arrivals = launch_.arrivals[unit()];
      last = add_and_order(arrivals, 1) == blocks - 1;
      if (last) arrivals = 0;
    }
    return __syncthreads_or(last && cause() == 0) != 0;
  }

 private:
  __device__ int cause() const { return *static_cast<const volatile int*>(&launch_.failures[blockIdx.y].cause); }

  // What this block wrote is there for whoever sees the sum, and the other way round. Returns what was there.
  __device__ static int add_and_order(int& to, int x) {
    int before;
    asm volatile("atom.acq_rel.gpu.global.add.s32 %0, [%1], %2;" : "=r"(before) : "l"(&to), "r"(x) : "memory");
    return before;
  }

 protected:
  const AttendLaunch& launch_;
  const DeviceSpan& span_;
  int layer_, kv_head_, group_, head_;
  std::int64_t now_;  // position of the row
  DeviceHead state_;
  Slots<Element> slots_;
  double* reduction_;  // shared
};

}  // namespace a2sf::cuda
