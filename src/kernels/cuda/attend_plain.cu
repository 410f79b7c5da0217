#include "kernels/cuda/attend.h"

#include <cfloat>

#include "kernels/cuda/row_head.cuh"
#include "kernels/cuda/workspace.cuh"

namespace a2sf::cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::uint64_t kNobody = ~std::uint64_t{0};

template <class Element>
class PlainRow : public RowHead<Element> {
  using Base = RowHead<Element>;
  using Base::dim_, Base::group_, Base::kv_head_, Base::launch_, Base::now_, Base::q_, Base::slots_, Base::span_,
      Base::state_;
  using Base::for_slots, Base::reduce, Base::thread, Base::threads;

 public:
  __device__ PlainRow(const AttendLaunch& launch, const DeviceSpan& span, int kv_head, int row, double* shared)
      : Base(launch, span, kv_head, row, shared) {
    const Workspace work(launch, this->unit());
    probabilities_ = work.logits;
    given_ = work.given;
  }

  // False: the sequence has failed.
  __device__ bool run(int row) {
    if (this->has_failed()) return false;
    this->expire();
    this->ask_for_rotations();
    this->read();
    if (!can_store()) return this->fail(FailureCause::attention);
    const int slot = this->next_slot();
    if (slot == kNoSlot) return this->fail(FailureCause::eviction);
    insert(slot);
    if (!attend_to([](int) { return true; })) return this->fail(FailureCause::attention);
    if (state_.mode == RetentionMode::score) update_scores();
    if (state_.mode == RetentionMode::oracle) attend_to_ideal();
    weigh_values(launch_.out + (static_cast<std::int64_t>(this->row_) * launch_.heads + kv_head_ * group_) * dim_);
    if (this->must_evict(row))
      this->evict(choose_victim(slots_, state_, now_, this->reduction_), [&](int at) { return given_[at]; });
    this->keep_state();
    return true;
  }

 private:
  // Whether the row's key and value are finite.
  __device__ bool can_store() const {
    bool finite = true;
    for (int i = thread(); i < dim_; i += threads()) finite &= isfinite(this->k_[i]) && isfinite(this->v_[i]);
    return !__syncthreads_or(!finite);
  }

  __device__ void insert(int slot) {
    this->store_token(slot);
    this->weigh(slot, this->v_);
    if (thread() == 0) slots_.score(slot) = 0;
    this->admit(slot);
  }

  // The softmax over the occupied slots that `sees` allows, and its sum over the group. False: a logit is not finite.
  template <class Sees>
  __device__ bool attend_to(Sees sees) {
    const int lane = thread() % kWarp;
    bool finite = true;
    for (int slot = thread() / kWarp; slot < state_.used; slot += threads() / kWarp) {
      const bool seen = slots_.position(slot) >= 0 && sees(slot);
      const Element* const key = slots_.key(slot);
      for (int g = 0; g < group_; ++g) {
        float dot = 0;
        for (int i = lane; seen && i < dim_; i += kWarp) dot = fmaf(q_[g * this->stride_ + i], to_float(key[i]), dot);
        const float logit = over_warp(dot, Sum()) * launch_.scale;
        finite &= isfinite(logit);
        if (lane == 0) probability(g, slot) = seen ? logit : -FLT_MAX;
      }
    }
    if (__syncthreads_or(!finite)) return false;
    for (int g = 0; g < group_; ++g) softmax(g);
    for_slots([&](int slot) {
      float sum = 0;
      for (int g = 0; g < group_; ++g) sum += probability(g, slot);
      given_[slot] = sum;
    });
    __syncthreads();
    return true;
  }
  __device__ float& probability(int query_head, int slot) const {
    return probabilities_[static_cast<std::int64_t>(query_head) * launch_.most_slots + slot];
  }

  __device__ void softmax(int g) {
    float largest = -FLT_MAX, sum = 0;
    for_slots([&](int slot) { largest = fmaxf(largest, probability(g, slot)); });
    largest = reduce(largest, Largest());
    for_slots([&](int slot) {
      const float logit = probability(g, slot), numerator = logit == -FLT_MAX ? 0 : expf(logit - largest);
      probability(g, slot) = numerator;
      sum += numerator;
    });
    const float factor = 1 / reduce(sum, Sum());
    for_slots([&](int slot) { probability(g, slot) *= factor; });
    __syncthreads();
  }

  // Step 3.
  __device__ void update_scores() {
    for_slots([&](int slot) {
      if (slots_.position(slot) < 0) return;
      float sum = 0;
      for (int g = 0; g < group_; ++g) sum += this->addition(probability(g, slot));
      slots_.score(slot) = fmaf(state_.alpha, slots_.score(slot), sum);
    });
    __syncthreads();
  }
  // The row's own token, and of the earlier ones the `budget` of highest probability; of equal ones the newer.
  __device__ void attend_to_ideal() {
    const auto rank = [&](int slot) {
      return slots_.position(slot) == now_ ? kNobody : order_of(given_[slot], slots_.position(slot));
    };
    // The largest rank that at least `budget` earlier tokens reach, bit by bit.
    std::uint64_t least = 0;
    for (std::uint64_t bit = std::uint64_t{1} << 63; bit > 0; bit /= 2) {
      int count = 0;
      for_slots([&](int slot) {
        count += slots_.position(slot) >= 0 && slots_.position(slot) < now_ && rank(slot) >= (least | bit) ? 1 : 0;
      });
      if (reduce(count, Sum()) >= state_.budget) least |= bit;
    }
    for_slots([&](int slot) { slots_.score(slot) = rank(slot) >= least ? 1 : 0; });
    __syncthreads();
    attend_to([&](int slot) { return slots_.score(slot) != 0; });
    for_slots([&](int slot) { slots_.score(slot) = 0; });
  }

  __device__ void weigh_values(float* out) const {
    for (int i = thread(); i < group_ * dim_; i += threads()) {
      const float* const p = &probability(i / dim_, 0);
      float sum = 0;
      for (int slot = 0; slot < state_.used; ++slot) sum = fmaf(p[slot], to_float(slots_.value(slot)[i % dim_]), sum);
      out[i] = sum;
    }
    __syncthreads();
  }

  float* probabilities_;  // [group][most slots]
  float* given_;          // [most slots]: their sum over the group
};

template <class Element>
__device__ void attend_plainly_as(const AttendLaunch& launch, const DeviceSpan& span, double* shared) {
  for (int row = 0; row < span.rows; ++row) {
    if (!PlainRow<Element>(launch, span, static_cast<int>(blockIdx.x), row, shared).run(row)) return;
    __syncthreads();
  }
}

__global__ void __launch_bounds__(kThreads)
    attend_plainly(const __grid_constant__ AttendLaunch launch, bool slow_ones_alone) {
  extern __shared__ double shared[];
  const DeviceSpan& span = launch.spans[blockIdx.y];
  const DeviceHead& head = span.sequence.heads[launch.layer * launch.kv_heads + static_cast<int>(blockIdx.x)];
  if (slow_ones_alone && is_fast(head.mode, span.f16, launch.head_dim)) return;
  if (span.f16) {
    attend_plainly_as<__half>(launch, span, shared);
  } else {
    attend_plainly_as<float>(launch, span, shared);
  }
}

cudaError_t enqueue(const AttendLaunch& launch, bool slow_ones_alone, const Queue& queue) {
  const std::size_t shared = RowHead<float>::shared_bytes(launch.heads / launch.kv_heads, launch.head_dim);
  const cudaError_t code =
      cudaFuncSetAttribute(attend_plainly, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
  if (code != cudaSuccess) return code;
  const dim3 grid(static_cast<unsigned>(launch.kv_heads), static_cast<unsigned>(launch.span_count));
  attend_plainly<<<grid, kThreads, shared, queue.stream>>>(launch, slow_ones_alone);
  return cudaGetLastError();
}

}  // namespace

cudaError_t attend_plain(const AttendLaunch& launch, const Queue& queue) { return enqueue(launch, false, queue); }
cudaError_t attend_slow_heads(const AttendLaunch& launch, const Queue& queue) { return enqueue(launch, true, queue); }

}  // namespace a2sf::cuda
