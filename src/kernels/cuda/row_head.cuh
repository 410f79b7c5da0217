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
  // Bytes of shared memory that it works in.
  static std::size_t shared_bytes(int group, int dim) {
    return sizeof(float) * static_cast<std::size_t>((group + 2) * dim + 1) + sizeof(double) * kMostWarps;
  }

 protected:
  static constexpr int kMostWarps = 8;  // of a block

  __device__ RowHead(const AttendLaunch& launch, const DeviceSpan& span, int kv_head, double* shared)
      : launch_(launch),
        span_(span),
        kv_head_(kv_head),
        group_(launch.heads / launch.kv_heads),
        dim_(launch.head_dim),
        head_(launch.layer * launch.kv_heads + kv_head),
        state_(span.sequence.heads[head_]),
        slots_(span.sequence, head_, launch.head_dim),
        reduction_(shared),
        q_(reinterpret_cast<float*>(shared + kMostWarps)),
        k_(q_ + group_ * dim_),
        v_(k_ + dim_) {}

  __device__ static int thread() { return static_cast<int>(threadIdx.x); }
  __device__ static int threads() { return static_cast<int>(blockDim.x); }

  // The first steps of a row: what a window has left behind goes, the row's token comes. False: the sequence has
  // failed.
  __device__ bool begin_row(int row) {
    if (__syncthreads_or(thread() == 0 && failure().cause != 0)) return false;
    now_ = span_.first_position + row;
    expire();
    read(span_.first_row + row);
    if (__syncthreads_or(!is_finite(k_, dim_) || !is_finite(v_, dim_))) return fail(FailureCause::attention);
    const int slot = place();
    if (slot < 0) return fail(FailureCause::eviction);
    insert(slot);
    return true;
  }

  // The head's counts are what they are in this object.
  __device__ void keep_state() const {
    if (thread() != 0) return;
    in_memory().used = state_.used;
    in_memory().occupied = state_.occupied;
    in_memory().values_seen = state_.values_seen;
  }

  // Step 4 after this row: what goes. `given(slot)`: what the row gave it.
  template <class Given>
  __device__ void evict(int row, Given given) {
    const bool ends_prompt = span_.prompt_ends && row == span_.rows - 1 && span_.in_prompt;
    if (state_.mode != RetentionMode::score || (span_.in_prompt && !ends_prompt)) return;
    if (!ends_prompt && state_.occupied < state_.budget + span_.block) return;
    while (state_.occupied > state_.budget) {
      const int victim = choose_victim(slots_, state_, now_, reduction_);
      if (victim < 0) break;
      if (thread() == 0) leave(victim, given(victim));
      --state_.occupied;
      __syncthreads();
    }
  }

  // What a probability adds to a score.
  __device__ float addition(float p) const {
    if (p < state_.threshold) return 0;
    return state_.power == 1 ? p : powf(p, state_.power);
  }

  __device__ DeviceFailure& failure() const { return launch_.failures[blockIdx.y]; }

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

  // Step 0: what a sliding window has left behind.
  __device__ void expire() {
    if (launch_.window == 0) return;
    int gone = 0;
    for_slots([&](int slot) {
      const std::int32_t position = slots_.position(slot);
      if (position < 0 || position > now_ - launch_.window) return;
      leave(slot, 0);
      ++gone;
    });
    state_.occupied -= reduce(gone, Sum());
  }

  // The slot is free, and the log knows whose it was.
  __device__ void leave(int slot, float probability) {
    if (span_.sequence.log != nullptr) {
      const int entry = atomicAdd(&in_memory().logged, 1);
      span_.sequence.log[static_cast<std::int64_t>(head_) * span_.sequence.log_capacity + entry] = {
          slots_.position(slot), static_cast<std::int32_t>(now_), slots_.score(slot), probability};
    }
    slots_.position(slot) = -1;
  }

  __device__ bool is_finite(const float* x, int count) const {
    bool finite = true;
    for (int i = thread(); i < count; i += threads()) finite &= isfinite(x[i]);
    return finite;
  }

  // Norms of the heads and rotation: q_, k_ and v_ are what the row attends with.
  __device__ void read(int row) {
    const float* const q = launch_.q + (static_cast<std::int64_t>(row) * launch_.heads + kv_head_ * group_) * dim_;
    const std::int64_t at = (static_cast<std::int64_t>(row) * launch_.kv_heads + kv_head_) * dim_;
    for (int i = thread(); i < group_ * dim_; i += threads()) q_[i] = q[i];
    for (int i = thread(); i < dim_; i += threads()) {
      k_[i] = launch_.k[at + i];
      v_[i] = launch_.v[at + i];
    }
    __syncthreads();
    for (int g = 0; g < group_; ++g) normalise(q_ + g * dim_, launch_.q_norm);
    normalise(k_, launch_.k_norm);
    rotate();
  }

  __device__ void normalise(float* x, const DeviceNorm& norm) {
    if (norm.weight == nullptr) return;
    float sum = 0, squares = 0;
    const auto columns = static_cast<float>(dim_);
    for (int i = thread(); norm.subtracts_mean && i < dim_; i += threads()) sum += x[i];
    const float mean = norm.subtracts_mean ? reduce(sum, Sum()) / columns : 0;
    for (int i = thread(); i < dim_; i += threads()) squares += (x[i] - mean) * (x[i] - mean);
    const float scale = 1 / sqrtf(reduce(squares, Sum()) / columns + norm.epsilon);
    for (int i = thread(); i < dim_; i += threads())
      x[i] = (x[i] - mean) * scale * norm.weight[i] + (norm.bias == nullptr ? 0 : norm.bias[i]);
    __syncthreads();
  }

  __device__ void rotate() {
    const DeviceRope& rope = launch_.rope;
    for (int i = thread(); i < rope.pairs; i += threads()) {
      double sine, cosine;
      sincos(rope.angles[i] * static_cast<double>(now_), &sine, &cosine);
      sine *= rope.magnitude;
      cosine *= rope.magnitude;
      for (int h = 0; h <= group_; ++h) {  // the last one is the key
        float& x = q_[h * dim_ + (rope.interleaved ? 2 * i : i)];
        float& y = q_[h * dim_ + (rope.interleaved ? 2 * i + 1 : i + rope.pairs)];
        const double x0 = x, y0 = y;
        x = static_cast<float>(x0 * cosine - y0 * sine);
        y = static_cast<float>(x0 * sine + y0 * cosine);
      }
    }
    __syncthreads();
  }

  // The slot of the row's token; negative: all are taken.
  __device__ int place() {
    if (state_.is_ring) {
      const auto slot = static_cast<int>(now_ % state_.most);
      for (int skipped = state_.used + thread(); skipped < slot; skipped += threads()) slots_.position(skipped) = -1;
      state_.used = max(state_.used, slot + 1);
      ++state_.occupied;
      return slot;
    }
    if (state_.occupied >= state_.most) return -1;
    if (state_.occupied++ == state_.used) return state_.used++;
    int lowest = INT32_MAX;
    for_slots([&](int slot) {
      if (slots_.position(slot) < 0) lowest = min(lowest, slot);
    });
    return reduce(lowest, Least());
  }

  __device__ void insert(int slot) {
    for (int i = thread(); i < dim_; i += threads()) {
      store(slots_.key(slot)[i], k_[i]);
      store(slots_.value(slot)[i], v_[i]);
    }
    if (span_.sequence.mean_values != nullptr) weigh(slot);
    if (threadIdx.x == 0) {
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
  int kv_head_, group_, dim_, head_;
  DeviceHead state_;
  Slots<Element> slots_;
  double* reduction_;     // shared
  float *q_, *k_, *v_;    // shared: [group][dim], [dim], [dim]; the key follows the queries
  std::int64_t now_ = 0;  // position of the row
};

}  // namespace a2sf::cuda
