// After a row's attention: what it adds to A, and what goes (section 3 of docs/architecture.md, steps 0, 3 and 4). The
// blocks of a head share out its slots; the last one to be done admits the row's token and evicts.
#include "kernels/cuda/head_slots.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/workspace.cuh"

namespace a2sf::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kSlots = 4 * kThreads;  // of a block, more where there would be too many blocks

__host__ __device__ int slots_of_block(int slots) {
  return (slots + kSlots * kMostBlocks - 1) / (kSlots * kMostBlocks) * kSlots;
}
__host__ __device__ int blocks_of(int slots) { return (slots + slots_of_block(slots) - 1) / slots_of_block(slots); }

class ScoreRow : public HeadSlots<__half> {
 public:
  // `denominators`: shared, [group].
  __device__ ScoreRow(const AttendLaunch& launch, const DeviceSpan& span, int row, double* reduction,
                      Denominator* denominators)
      : HeadSlots(launch, span, static_cast<int>(blockIdx.x), row, reduction),
        row_(row),
        found_(launch, unit()),
        denominators_(denominators) {}

  __device__ void run() {
    if (has_failed()) return;
    arrives_ = next_slot();
    const int slots = max(state_.used, arrives_ + 1), each = slots_of_block(slots), blocks = blocks_of(slots);
    const int index = static_cast<int>(blockIdx.z);
    if (index >= blocks) return;
    for (int g = thread() / kWarp; g < group_; g += threads() / kWarp) {
      const Denominator denominator(found_, g, partitions_of(slots).count);
      if (thread() % kWarp == 0) denominators_[g] = denominator;
    }
    __syncthreads();
    const int first = index * each, end = min(first + each, slots);
    if (first <= arrives_ && arrives_ < end) weigh(arrives_, value_of_row());
    Candidate victim = score(first, end).first_of_block(reduction_);
    if (blocks > 1) {
      if (thread() == 0) found_.candidates[index] = victim;
      if (!is_last_of(blocks)) return;
      victim = thread() < blocks ? found_.candidates[thread()] : Candidate{};
      victim = victim.first_of_block(reduction_);
    }
    finish(victim);
  }

 private:
  __device__ const float* value_of_row() const {
    const auto row = static_cast<std::int64_t>(span_.first_row + row_);
    return launch_.v + (row * launch_.kv_heads + kv_head_) * launch_.head_dim;
  }

  // Step 3 for these slots. Returns this thread's candidate.
  __device__ Candidate score(int first, int end) const {
    Candidate victim;
#pragma unroll 4
    for (int slot = first + thread(); slot < end; slot += kThreads) {
      const bool arrives = slot == arrives_;
      const std::int32_t position = arrives ? static_cast<std::int32_t>(now_) : slots_.position(slot);
      if (!sees(position)) continue;
      float sum = 0;
      for (int g = 0; g < group_; ++g) sum += addition(denominators_[g].probability(found_.logit(g, slot)));
      const float score = arrives ? sum : fmaf(state_.alpha, slots_.score(slot), sum);
      slots_.score(slot) = score;
      victim.consider(state_, now_, slot, position, rank_of(slots_, state_, slot, score));
    }
    return victim;
  }

  __device__ void finish(const Candidate& victim) {
    admit(arrives_);
    expire();
    if (must_evict(row_)) evict(victim.slot, [&](int slot) { return given(slot); });
    keep_state();
  }
  __device__ float given(int slot) const {
    float sum = 0;
    for (int g = 0; g < group_; ++g) sum += denominators_[g].probability(found_.logit(g, slot));
    return sum;
  }

  int row_, arrives_ = kNoSlot;
  Workspace found_;
  Denominator* denominators_;
};

__global__ void __launch_bounds__(kThreads) score_rows(const __grid_constant__ AttendLaunch launch, int row) {
  extern __shared__ __align__(16) double shared[];
  let_next_begin();
  wait_for_previous();
  const DeviceSpan& span = launch.spans[blockIdx.y];
  const DeviceHead& head = span.sequence.heads[launch.layer * launch.kv_heads + static_cast<int>(blockIdx.x)];
  if (row >= span.rows || head.mode != RetentionMode::score || !is_fast(head.mode, span.f16, launch.head_dim)) return;
  auto* const denominators = reinterpret_cast<Denominator*>(shared + HeadSlots<__half>::kMostWarps);
  ScoreRow(launch, span, row, shared, denominators).run();
}

}  // namespace

cudaError_t score_row(const AttendLaunch& launch, int row, const Queue& queue) {
  const auto group = static_cast<std::size_t>(launch.heads / launch.kv_heads);
  const dim3 grid(static_cast<unsigned>(launch.kv_heads), static_cast<unsigned>(launch.span_count),
                  static_cast<unsigned>(blocks_of(launch.most_slots)));
  return enqueue(score_rows, grid, kThreads, HeadSlots<__half>::kReductionBytes + group * sizeof(Denominator), queue,
                 launch, row);
}

}  // namespace a2sf::cuda
