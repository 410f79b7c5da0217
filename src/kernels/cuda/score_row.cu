// After a row's attention: what it adds to A, and what goes (section 3 of docs/architecture.md, steps 0, 3 and 4). The
// blocks of a head share out its slots; the last one to be done admits the row's token and evicts.
#include <algorithm>

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
// The most blocks that a head of so many slots, or fewer, is worth.
int most_blocks(int slots) { return std::min((slots + kSlots - 1) / kSlots, kMostBlocks); }

class ScoreRow : public HeadSlots<__half> {
 public:
  // `denominators`: shared, [group].
  __device__ ScoreRow(const AttendLaunch& launch, const DeviceSpan& span, int row, double* reduction,
                      Denominator* denominators)
      : HeadSlots(launch, span, launch.layer + static_cast<int>(blockIdx.x) / launch.kv_heads,
                  static_cast<int>(blockIdx.x) % launch.kv_heads, row, reduction),
        row_(row),
        found_(launch, unit()),
        denominators_(denominators) {}

  __device__ void run() {
    arrives_ = next_slot();
    if (arrives_ == kNoSlot) return;  // the sequence has failed
    const int slots = max(state_.used, arrives_ + 1), each = slots_of_block(slots);
    const int first = static_cast<int>(blockIdx.z) * each;
    for (int g = thread() / kWarp; g < group_; g += threads() / kWarp) {
      const Shares of_head(found_, g, partitions_of(slots).count);
      if (thread() % kWarp == 0) denominators_[g] = of_head.denominator;
    }
    __syncthreads();
    const auto blocks = static_cast<int>(gridDim.z);
    Candidate victim = score(first, min(first + each, slots)).first_of_block(reduction_);
    if (blocks > 1 && thread() == 0) found_.candidates[blockIdx.z] = victim;
    if (!is_last_of(blocks)) return;
    if (blocks > 1) {
      victim = thread() < blocks ? found_.candidates[thread()] : Candidate{};
      victim = victim.first_of_block(reduction_);
    }
    finish(victim);
  }

 private:
  // Step 3 for these slots, a few of each thread at once. Returns this thread's candidate.
  __device__ Candidate score(int first, int end) const {
    constexpr int kAtOnce = kSlots / kThreads;
    Candidate victim;
    for (int base = first + thread(); base < end; base += kSlots) {
      std::int32_t positions[kAtOnce];
      float scores[kAtOnce], given[kAtOnce] = {};
#pragma unroll
      for (int a = 0; a < kAtOnce; ++a) {
        const int slot = base + a * kThreads;
        positions[a] = slot == arrives_ ? static_cast<std::int32_t>(now_) : slot < end ? slots_.position(slot) : -1;
        scores[a] = slot < end && slot != arrives_ ? slots_.score(slot) : 0;
      }
#pragma unroll 4
      for (int g = 0; g < group_; ++g) {
#pragma unroll
        for (int a = 0; a < kAtOnce; ++a) {
          const float logit = sees(positions[a]) ? found_.logit(g, base + a * kThreads) : -FLT_MAX;
          given[a] += addition(denominators_[g].probability(logit));
        }
      }
#pragma unroll
      for (int a = 0; a < kAtOnce; ++a) {
        const int slot = base + a * kThreads;
        if (!sees(positions[a])) continue;
        const float score = fmaf(state_.alpha, scores[a], given[a]);
        slots_.score(slot) = score;
        victim.consider(state_, now_, slot, positions[a], rank_of(slots_, state_, slot, score));
      }
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

// Of so many layers from the launch's on.
cudaError_t score(const AttendLaunch& launch, int layers, int row, const Queue& queue) {
  const auto group = static_cast<std::size_t>(launch.heads / launch.kv_heads);
  const dim3 grid(static_cast<unsigned>(layers * launch.kv_heads), static_cast<unsigned>(launch.span_count),
                  static_cast<unsigned>(most_blocks(launch.most_slots)));
  return enqueue(score_rows, grid, kThreads, HeadSlots<__half>::kReductionBytes + group * sizeof(Denominator), queue,
                 launch, row);
}

}  // namespace

cudaError_t score_row(const AttendLaunch& launch, int row, const Queue& queue) { return score(launch, 1, row, queue); }

cudaError_t score_layers(const AttendLaunch& launch, int layers, const Queue& queue) {
  if (const auto code = cudaEventRecord(queue.forked, queue.stream); code != cudaSuccess) return code;
  if (const auto code = cudaStreamWaitEvent(queue.aside, queue.forked); code != cudaSuccess) return code;
  AttendLaunch all = launch;
  all.layer = 0;
  Queue aside = queue;
  aside.stream = queue.aside;
  aside.overlaps = false;  // it waits for attention as a whole
  return score(all, layers, 0, aside);
}

}  // namespace a2sf::cuda
