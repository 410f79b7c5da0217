// One row of one KV head up to where it attends: what every way to attend has in common.
#pragma once

#include "kernels/cuda/attend.h"
#include "kernels/cuda/block.cuh"
#include "kernels/cuda/slots.cuh"
#include "kernels/cuda/victim.cuh"
#include "kernels/span_failures.h"

namespace a2sf::cuda {

// Where a block of KV head x of span y works.
__device__ inline std::int64_t unit_of_block(const AttendLaunch& launch) {
  return static_cast<std::int64_t>(blockIdx.y) * launch.kv_heads + blockIdx.x;
}

// Of KV head x of span y; the first report of a span stays.
__device__ inline void report_failure(const AttendLaunch& launch, FailureCause cause, std::int64_t position) {
  DeviceFailure& failure = launch.failures[blockIdx.y];
  if (threadIdx.x != 0 || atomicCAS(&failure.cause, 0, static_cast<int>(cause) + 1) != 0) return;
  failure.layer = launch.layer;
  failure.kv_head = static_cast<int>(blockIdx.x);
  failure.position = position;
}

// All threads of a block run it together; its members are the same in all of them. Block (x, y) is of KV head x of
// span y.
template <class Element>
class RowHead {
 public:
  // Bytes of shared memory that it works in: a multiple of 16.
  static std::size_t shared_bytes(int group, int dim) {
    return sizeof(double) * kMostWarps + sizeof(float) * static_cast<std::size_t>((group + 2) * padded(dim));
  }
  __host__ __device__ static int padded(int dim) { return (dim + kTile - 1) / kTile * kTile; }

 protected:
  static constexpr int kMostWarps = 8;  // of a block

  __device__ RowHead(const AttendLaunch& launch, const DeviceSpan& span, int kv_head, double* shared)
      : launch_(launch),
        span_(span),
        kv_head_(kv_head),
        group_(launch.heads / launch.kv_heads),
        dim_(launch.head_dim),
        stride_(padded(launch.head_dim)),
        head_(launch.layer * launch.kv_heads + kv_head),
        state_(span.sequence.heads[head_]),
        slots_(span.sequence, head_, launch.head_dim),
        reduction_(shared),
        q_(reinterpret_cast<float*>(shared + kMostWarps)),
        k_(q_ + group_ * stride_),
        v_(k_ + stride_) {}

  __device__ static int thread() { return static_cast<int>(threadIdx.x); }
  __device__ static int threads() { return static_cast<int>(blockDim.x); }

  // The first steps of a row: what a window has left behind goes, the row's token comes. False: the sequence has
  // failed.
  __device__ bool begin_row(int row) {
    if (has_failed()) return false;
    now_ = span_.first_position + row;
    expire();
    read(span_.first_row + row);
    if (!can_store()) return fail(FailureCause::attention);
    const int slot = next_slot();
    if (slot < 0) return fail(FailureCause::eviction);
    insert(slot);
    return true;
  }

  // The head's counts are what they are in this object.
  __device__ void keep_state() const {
    if (thread() != 0) return;
    in_memory().used = state_.used;
    in_memory().occupied = state_.occupied;
    in_memory().free = state_.free;
    in_memory().values_seen = state_.values_seen;
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

  // What a probability adds to a score.
  __device__ float addition(float p) const {
    if (p < state_.threshold) return 0;
    return state_.power == 1 ? p : powf(p, state_.power);
  }

  // Whether the sequence has, as far as this block can know. All threads together.
  __device__ bool has_failed() const {
    const volatile int& cause = launch_.failures[blockIdx.y].cause;
    return __syncthreads_or(thread() == 0 && cause != 0) != 0;
  }
  __device__ bool fail(FailureCause cause) {
    report_failure(launch_, cause, now_);
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

  // Whether the row still sees what was at this position; negative: nothing is.
  __device__ bool sees(std::int32_t position) const {
    return position >= 0 && (launch_.window == 0 || position > now_ - launch_.window);
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
    if (launch_.window == 0) return;
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

  // Whether the row's key and value are finite.
  __device__ bool can_store() const { return !__syncthreads_or(!is_finite(k_, dim_) || !is_finite(v_, dim_)); }

  __device__ bool is_finite(const float* x, int count) const {
    bool finite = true;
    for (int i = thread(); i < count; i += threads()) finite &= isfinite(x[i]);
    return finite;
  }

  // Norms of the heads and rotation: q_, k_ and v_ are what the row attends with. A warp takes a head at a time.
  __device__ void read(int row) {
    const float* const q = launch_.q + (static_cast<std::int64_t>(row) * launch_.heads + kv_head_ * group_) * dim_;
    const std::int64_t at = (static_cast<std::int64_t>(row) * launch_.kv_heads + kv_head_) * dim_;
    for (int h = thread() / kWarp; h < group_ + 2; h += threads() / kWarp) {
      const float* const in = h < group_ ? q + h * dim_ : (h == group_ ? launch_.k : launch_.v) + at;
      float* const out = q_ + h * stride_;
      for (int i = thread() % kWarp; i < stride_; i += kWarp) out[i] = i < dim_ ? in[i] : 0;
      if (h <= group_) normalise(out, h < group_ ? launch_.q_norm : launch_.k_norm);
    }
    __syncthreads();
    rotate(row);
  }

  // By one warp, each lane what it has written.
  __device__ void normalise(float* x, const DeviceNorm& norm) const {
    if (norm.weight == nullptr) return;
    const int lane = thread() % kWarp;
    const auto columns = static_cast<float>(dim_);
    float sum = 0, squares = 0;
    for (int i = lane; norm.subtracts_mean && i < dim_; i += kWarp) sum += x[i];
    const float mean = norm.subtracts_mean ? over_warp(sum, Sum()) / columns : 0;
    for (int i = lane; i < dim_; i += kWarp) squares += (x[i] - mean) * (x[i] - mean);
    const float scale = 1 / sqrtf(over_warp(squares, Sum()) / columns + norm.epsilon);
    for (int i = lane; i < dim_; i += kWarp)
      x[i] = (x[i] - mean) * scale * norm.weight[i] + (norm.bias == nullptr ? 0 : norm.bias[i]);
  }

  __device__ void rotate(int row) const {
    const DeviceRope& rope = launch_.rope;
    const float2* const rotations = launch_.rotations + static_cast<std::int64_t>(row) * rope.pairs;
    for (int e = thread(); e < (group_ + 1) * rope.pairs; e += threads()) {
      const int i = e % rope.pairs;
      float* const x = q_ + e / rope.pairs * stride_;  // the last one is the key
      float& first = x[rope.interleaved ? 2 * i : i];
      float& second = x[rope.interleaved ? 2 * i + 1 : i + rope.pairs];
      const float2 turn = rotations[i];
      const float first0 = first, second0 = second;
      first = first0 * turn.x - second0 * turn.y;
      second = first0 * turn.y + second0 * turn.x;
    }
    __syncthreads();
  }

  // The slot of the row's token; kNoSlot: all are taken.
  __device__ int next_slot() const {
    if (state_.is_ring) return static_cast<int>(now_ % state_.most);
    if (state_.free != kNoSlot) return state_.free;
    return state_.used < state_.most ? state_.used : kNoSlot;
  }

  // The row's token into next_slot().
  __device__ void insert(int slot) {
    if (state_.is_ring) {
      for (int skipped = state_.used + thread(); skipped < slot; skipped += threads()) slots_.position(skipped) = -1;
    } else if (slot == state_.free) {
      state_.free = next_free(slots_.position(slot));
    }
    state_.used = max(state_.used, slot + 1);
    ++state_.occupied;
    for (int i = thread(); i < dim_; i += threads()) {
      store(slots_.key(slot)[i], k_[i]);
      store(slots_.value(slot)[i], v_[i]);
    }
    if (span_.sequence.mean_values != nullptr) weigh(slot);
    __syncthreads();  // everybody has read which slot is free next
    if (thread() == 0) {
      slots_.position(slot) = static_cast<std::int32_t>(now_);
      slots_.score(slot) = 0;
    }
    __syncthreads();
  }

  // HeadCache::weigh().
  __device__ void weigh(int slot) {
    float* const means = span_.sequence.mean_values + static_cast<std::int64_t>(head_) * dim_;
    const double seen = ++state_.values_seen;
    double squares = 0;
    for (int i = thread(); i < dim_; i += threads()) {
      const double mean = means[i] + (static_cast<double>(v_[i]) - means[i]) / seen;
      squares += (v_[i] - mean) * (v_[i] - mean);
      means[i] = static_cast<float>(mean);
    }
    squares = reduce(squares, Sum());
    if (threadIdx.x == 0) slots_.weight(slot) = static_cast<float>(fmin(sqrt(squares), kMostWeight));
  }

  const AttendLaunch& launch_;
  const DeviceSpan& span_;
  int kv_head_, group_, dim_;
  int stride_;  // dim_ with the zeros that a key in its slot ends with
  int head_;
  DeviceHead state_;
  Slots<Element> slots_;
  double* reduction_;     // shared
  float *q_, *k_, *v_;    // shared: [group][stride], [stride], [stride], one after the other
  std::int64_t now_ = 0;  // position of the row
};

}  // namespace a2sf::cuda
