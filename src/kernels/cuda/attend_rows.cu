// Attention row by row, many blocks to a head: each attends to a partition of its slots, and the last one to be done
// puts together what they found, stores the row's token, scores A, evicts. All blocks read, the last one alone writes.
// Where the partitions lie and the order of every sum depends on the head's own slots alone.
#include <cfloat>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/partition.cuh"

namespace a2sf::cuda {
namespace {

template <class Element>
class AttendRow : public Partition<Element> {
  using Base = Partition<Element>;
  using Base::dim_, Base::group_, Base::kv_head_, Base::launch_, Base::now_, Base::slots_, Base::span_, Base::state_,
      Base::thread, Base::threads, Base::workspace_;

 public:
  __device__ AttendRow(const AttendLaunch& launch, const DeviceSpan& span, double* shared)
      : Base(launch, span, shared), maxima_(this->q_), factors_(maxima_ + group_) {}

  // Before the first row the cache is as the last step left it: its slots are read while the product that makes the
  // row's queries ends.
  __device__ void run(int row) {
    now_ = span_.first_position + row;
    const int slot = slot_of_row();
    const int partitions = partitions_of(max(state_.used, slot + 1));
    if (this->index() >= partitions) return;
    this->prefetch(slot);
    if (row == 0) wait_for_previous();
    if (this->has_failed()) return;
    this->read(span_.first_row + row);
    if (slot == kNoSlot) {
      this->fail(FailureCause::eviction);
    } else if (!this->can_store() || !this->attend()) {
      this->fail(FailureCause::attention);
    }
    if (this->is_last_of(partitions)) finish(row, slot, partitions);
  }

 private:
  // All slots may be taken where the window leaves one behind that nobody has freed yet.
  __device__ int slot_of_row() const {
    const int slot = this->next_slot();
    return slot == kNoSlot && launch_.window > 0 ? this->find_expired() : slot;
  }

  __device__ void finish(int row, int slot, int partitions) {
    if (this->has_failed()) return;
    for (int g = thread() / kWarp; g < group_; g += threads() / kWarp) find_denominator(g, partitions);
    __syncthreads();
    write_output(row, partitions);
    if (this->next_slot() == kNoSlot) this->leave(slot, 0);
    this->insert(slot);
    if (state_.is_ring) expire_in_ring();
    if (state_.mode == RetentionMode::score) score_and_evict(row);
    this->keep_state();
  }

  // The softmax of query head g is 2^(logit - maxima_[g]) * factors_[g]. By one warp.
  __device__ void find_denominator(int g, int partitions) const {
    const int lane = thread() % kWarp;
    float largest = -FLT_MAX, sum = 0;
    for (int i = lane; i < partitions; i += kWarp) largest = fmaxf(largest, workspace_.maxima[this->part(i, g)]);
    largest = over_warp(largest, Largest());
    for (int i = lane; i < partitions; i += kWarp)
      sum += workspace_.sums[this->part(i, g)] * exp2f(workspace_.maxima[this->part(i, g)] - largest);
    sum = over_warp(sum, Sum());
    if (lane != 0) return;
    maxima_[g] = largest;
    factors_[g] = 1 / sum;
  }

  __device__ void write_output(int row, int partitions) const {
    float* const out =
        launch_.out + (static_cast<std::int64_t>(span_.first_row + row) * launch_.heads + kv_head_ * group_) * dim_;
    for (int e = thread(); e < group_ * dim_; e += threads()) {
      const int g = e / dim_;
      float sum = 0;
#pragma unroll 4
      for (int i = 0; i < partitions; ++i) {
        const float factor = exp2f(workspace_.maxima[this->part(i, g)] - maxima_[g]);
        sum = fmaf(workspace_.outputs[this->part(i, g) * dim_ + e % dim_], factor, sum);
      }
      out[e] = sum * factors_[g];
    }
  }

  // A ring evicts nothing: the one token that a row leaves behind is where the ring has it.
  __device__ void expire_in_ring() {
    const std::int64_t gone = now_ - launch_.window;
    const auto slot = static_cast<int>(gone % state_.most);
    if (gone >= 0 && slots_.position(slot) == gone) this->leave(slot, 0);
  }

  __device__ float probability(int g, int slot) const {
    return exp2f(workspace_.logits[static_cast<std::int64_t>(g) * launch_.most_slots + slot] - maxima_[g]) *
           factors_[g];
  }
  __device__ float given(int slot) const {
    float sum = 0;
    for (int g = 0; g < group_; ++g) sum += probability(g, slot);
    return sum;
  }

  // Steps 0, 3 and 4 in one pass over the slots, and one more for every victim but the first.
  __device__ void score_and_evict(int row) {
    Candidate victim;
    int expired = INT32_MAX;
    this->for_slots([&](int slot) {
      const std::int32_t position = slots_.position(slot);
      if (position < 0) return;
      if (!this->sees(position)) {
        expired = min(expired, slot);
        return;
      }
      float sum = 0;
      for (int g = 0; g < group_; ++g) sum += this->addition(probability(g, slot));
      const float score = fmaf(state_.alpha, slots_.score(slot), sum);
      slots_.score(slot) = score;
      victim.consider(state_, now_, slot, position, rank_of(slots_, state_, slot, score));
    });
    __syncthreads();
    if (launch_.window > 0 && __syncthreads_or(expired != INT32_MAX)) this->expire();
    if (!this->must_evict(row)) return;
    this->evict(victim.first_of_block(this->reduction_), [&](int slot) { return given(slot); });
  }

  float *maxima_, *factors_;  // shared, where the queries were: [group]
};

template <class Element>
__global__ void __launch_bounds__(kAttendThreads, sizeof(Element) == 2 ? 2 : 1)
    attend_row(const __grid_constant__ AttendLaunch launch, int row) {
  extern __shared__ __align__(16) double shared[];
  let_next_begin();
  const DeviceSpan& span = launch.spans[blockIdx.y];
  const int head = launch.layer * launch.kv_heads + static_cast<int>(blockIdx.x);
  if (row > 0) wait_for_previous();
  if (row >= span.rows || span.f16 != (sizeof(Element) == 2) ||
      span.sequence.heads[head].mode == RetentionMode::oracle) {
    wait_for_previous();  // so that whoever waits for this kernel has waited for all before it
    return;
  }
  AttendRow<Element>(launch, span, shared).run(row);
}

template <class Element>
cudaError_t attend_rows_as(const AttendLaunch& launch, int rows, const Queue& queue) {
  const std::size_t shared = Partition<Element>::shared_bytes(launch.heads / launch.kv_heads, launch.head_dim);
  const dim3 grid(static_cast<unsigned>(launch.kv_heads), static_cast<unsigned>(launch.span_count),
                  static_cast<unsigned>(partitions_of(launch.most_slots)));
  for (int row = 0; row < rows; ++row) {
    const auto code = enqueue(attend_row<Element>, grid, kAttendThreads, shared, queue, launch, row);
    if (code != cudaSuccess) return code;
  }
  return cudaSuccess;
}

}  // namespace

cudaError_t attend_rows(const AttendLaunch& launch, int rows, const Queue& queue) {
  const auto code = launch.f16 ? attend_rows_as<__half>(launch, rows, queue) : cudaSuccess;
  return code == cudaSuccess && launch.f32 ? attend_rows_as<float>(launch, rows, queue) : code;
}

}  // namespace a2sf::cuda
