// Attention row by row. The blocks of a head share out the partitions of its slots, each for up to four query heads,
// and the last one to be done puts together what all of them found. Where the partitions lie and the order of every sum
// depend on the head's own slots alone, not on how many blocks there are.
#include <algorithm>

#include "kernels/cuda/attend_tiles.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/row_head.cuh"
#include "kernels/cuda/workspace.cuh"

namespace a2sf::cuda {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * kWarp;
constexpr int kBlocks = 6;  // of a multiprocessor, two at once: with more, each would find its queries for less work

template <int dims>
struct SharedOutputs {
  float of_warps[kWarps][kHeads][dims];
  float maxima[kWarps][kHeads], sums[kWarps][kHeads];
};

// `dims`: those of a head, or more.
template <int dims>
class AttendRow : public RowHead<__half> {
 public:
  __device__ AttendRow(const AttendLaunch& launch, const DeviceSpan& span, int row, double* shared)
      : RowHead(launch, span, static_cast<int>(blockIdx.x) / sets_of(launch), row, shared),
        in_span_(row),
        sets_(sets_of(launch)),
        first_head_(static_cast<int>(blockIdx.x) % sets_ * kHeads),
        found_(launch, unit()),
        queries_(reinterpret_cast<__half*>(turns_) + 2 * stride_),
        fresh_(queries_ + 2 * kHeads * kPitch),
        outputs_(*reinterpret_cast<SharedOutputs<dims>*>(fresh_ + 2 * kPitch)) {
    ask_for_rotations();
  }

  static std::size_t shared_bytes(int group, int dim) {
    return RowHead::shared_bytes(group, dim) + sizeof(__half) * (2 * kHeads + 2) * kPitch + sizeof(SharedOutputs<dims>);
  }
  __host__ __device__ static int sets_of(const AttendLaunch& launch) {
    return (launch.heads / launch.kv_heads + kHeads - 1) / kHeads;
  }

  // Before the first row the cache is as the last step left it: its slots are read while the product that makes the
  // row's queries ends.
  __device__ void run() {
    const int slot = slot_of_row();
    const Partitions partitions = partitions_of(max(state_.used, slot + 1));
    const bool attends = static_cast<int>(blockIdx.z) < partitions.count;
    if (attends) {
      attend(slot, partitions);
    } else {
      wait_for_previous();  // until then another layer may be counting the same arrivals
    }
    if (!is_last_of(static_cast<int>(gridDim.z) * sets_)) return;
    if (!attends) read();
    finish(slot, partitions.count);
  }

 private:
  using Tiles = SlotTiles<dims>;
  static constexpr int kPitch = dims + 8;  // halves of a row in shared memory: neighbours lie in other banks

  // All slots may be taken where the window leaves one behind that nobody has freed yet.
  __device__ int slot_of_row() const {
    const int slot = next_slot();
    return slot == kNoSlot && state_.window > 0 ? find_expired() : slot;
  }
  __device__ int heads() const { return min(kHeads, group_ - first_head_); }

  // This block's partitions of the slots.
  __device__ void attend(int slot, const Partitions& partitions) {
    Tiles tiles(slots_, stride_, kWarps);
    begin(tiles, slot, partitions, static_cast<int>(blockIdx.z));
    if (in_span_ == 0) wait_for_previous();
    read();
    const bool stores = convert();
    if (slot == kNoSlot) {
      fail(FailureCause::eviction);
    } else if (!stores || !attend_to(tiles, slot, partitions)) {
      fail(FailureCause::attention);
    } else if (slot / partitions.slots % gridDim.z == blockIdx.z && first_head_ == 0) {
      store_token(slot);
    }
  }
  __device__ void begin(Tiles& tiles, int slot, const Partitions& partitions, int index) const {
    const int first = index * partitions.slots;
    if (index < partitions.count) tiles.begin(first, min(first + partitions.slots, max(state_.used, slot + 1)));
  }

  // The row's token as its slot has it, and its queries as tiles want them. False: the token is not finite.
  __device__ bool convert() const {
    const float scale = launch_.scale * kLog2E;
    bool finite = true;
    for (int i = thread(); i < stride_; i += kThreads) {
      finite &= isfinite(k_[i]) && isfinite(v_[i]);
      store(fresh_[i], k_[i]);
      store(fresh_[kPitch + i], v_[i]);
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
        const float q = h < heads() ? q_[(first_head_ + h) * stride_ + i] * scale : 0;
        const __half rounded = __float2half_rn(q);
        queries_[h * kPitch + i] = rounded;
        queries_[(kHeads + h) * kPitch + i] = __float2half_rn(q - __half2float(rounded));
      }
    }
    return !__syncthreads_or(!finite);
  }

  // False: a logit is not finite.
  __device__ bool attend_to(Tiles& tiles, int slot, const Partitions& partitions) {
    const TileQueries<dims> queries(queries_, kPitch, stride_);
    const bool scores = state_.mode == RetentionMode::score;
    const int used = max(state_.used, slot + 1);
    const auto sees_slot = [&](int at, std::int32_t position) {
      return at == slot || (at < state_.used && sees(position));
    };
    const auto keep = [&](int g, int at, float logit) {
      if (scores && g < heads() && at < used) found_.logit(first_head_ + g, at) = logit;
    };
    for (int index = static_cast<int>(blockIdx.z); index < partitions.count; index += static_cast<int>(gridDim.z)) {
      TileSums<dims> sums;
      const bool finite = tiles.attend(queries, {slot, fresh_, fresh_ + kPitch}, sums, sees_slot, keep);
      if (__syncthreads_or(!finite)) return false;
      begin(tiles, slot, partitions, index + static_cast<int>(gridDim.z));
      sums.leave(outputs_);
      __syncthreads();
      put_together(index);
    }
    return true;
  }

  // What the warps found.
  __device__ void put_together(int index) {
    for (int e = thread(); e < heads() * stride_ / 4; e += kThreads) {
      const int h = e / (stride_ / 4), i = e % (stride_ / 4) * 4;
      float maximum = -FLT_MAX, sum = 0;
      float4 output{};
      for (int w = 0; w < kWarps; ++w) maximum = fmaxf(maximum, outputs_.maxima[w][h]);
      for (int w = 0; w < kWarps; ++w) {
        const float factor = exp2f(outputs_.maxima[w][h] - maximum);
        sum = fmaf(factor, outputs_.sums[w][h], sum);
        add_scaled(output, factor, *reinterpret_cast<const float4*>(&outputs_.of_warps[w][h][i]));
      }
      const int part = index * group_ + first_head_ + h;
      found_.output(index, first_head_ + h, i) = output;
      if (i == 0) {
        found_.maxima[part] = maximum;
        found_.sums[part] = sum;
      }
    }
  }

  // What the blocks found. A head that scores takes the row's token later (score_row.cu).
  __device__ void finish(int slot, int partitions) {
    float* const out = launch_.out + (static_cast<std::int64_t>(row_) * launch_.heads + kv_head_ * group_) * dim_;
    for (int g = thread() / kWarp; g < group_; g += kWarps) {
      for (int first = 0; first < stride_; first += 4 * kWarp) {
        const int i = first + thread() % kWarp * 4;
        const float4 sums = found_.output_of_all(g, i, partitions);
        const float values[4] = {sums.x, sums.y, sums.z, sums.w};
        for (int e = 0; e < 4; ++e)
          if (i + e < dim_) out[g * dim_ + i + e] = values[e];
      }
    }
    if (next_slot() == kNoSlot) leave(slot, 0);  // the one that the window leaves behind
    weigh(slot, v_);
    if (state_.mode != RetentionMode::score) take(slot);
    keep_state();
  }
  __device__ void take(int slot) {
    if (thread() == 0) slots_.score(slot) = 0;
    admit(slot);
    if (state_.is_ring) expire_in_ring();
  }

  // A ring evicts nothing: the one token that a row leaves behind is where the ring has it.
  __device__ void expire_in_ring() {
    const std::int64_t gone = now_ - state_.window;
    const auto slot = static_cast<int>(gone % state_.most);
    if (gone >= 0 && slots_.position(slot) == gone) leave(slot, 0);
  }

  int in_span_;  // the row's number in its span
  int sets_;     // of kHeads query heads
  int first_head_;
  Workspace found_;
  __half* queries_;  // shared: their halves, then what these lose, [2 kHeads][kPitch]
  __half* fresh_;    // shared: the row's key and value as their slot has them, [2][kPitch]
  SharedOutputs<dims>& outputs_;
};

template <int dims>
__global__ void __launch_bounds__(kThreads, 2) attend_row(const __grid_constant__ AttendLaunch launch, int row) {
  extern __shared__ __align__(16) double shared[];
  let_next_begin();
  const DeviceSpan& span = launch.spans[blockIdx.y];
  const int kv_head = static_cast<int>(blockIdx.x) / AttendRow<dims>::sets_of(launch);
  if (row > 0) wait_for_previous();
  if (row >= span.rows ||
      !is_fast(span.sequence.heads[launch.layer * launch.kv_heads + kv_head].mode, span.f16, launch.head_dim)) {
    wait_for_previous();  // so that whoever waits for this kernel has waited for all before it
    return;
  }
  AttendRow<dims>(launch, span, row, shared).run();
}

template <int dims>
cudaError_t enqueue_row(const AttendLaunch& launch, int row, const Queue& queue) {
  const int group = launch.heads / launch.kv_heads, sets = launch.kv_heads * AttendRow<dims>::sets_of(launch);
  const int heads = sets * launch.span_count, blocks = (kBlocks * queue.multiprocessors + heads - 1) / heads;
  const dim3 grid(static_cast<unsigned>(sets), static_cast<unsigned>(launch.span_count),
                  static_cast<unsigned>(std::min(blocks, most_partitions(launch.most_slots))));
  return enqueue(attend_row<dims>, grid, kThreads, AttendRow<dims>::shared_bytes(group, launch.head_dim), queue, launch,
                 row);
}

cudaError_t attend_row_of(const AttendLaunch& launch, int row, const Queue& queue) {
  if (launch.head_dim <= 64) return enqueue_row<64>(launch, row, queue);
  if (launch.head_dim <= 96) return enqueue_row<96>(launch, row, queue);
  if (launch.head_dim <= 128) return enqueue_row<128>(launch, row, queue);
  return enqueue_row<kMostFastDim>(launch, row, queue);
}

}  // namespace

cudaError_t attend_rows(const AttendLaunch& launch, const Queue& queue) {
  for (int row = 0; row < launch.most_rows; ++row) {
    if (const auto code = attend_row_of(launch, row, queue); code != cudaSuccess) return code;
    if (!launch.heads_are.scoring || launch.scores_wait) continue;
    if (const auto code = score_row(launch, row, queue); code != cudaSuccess) return code;
  }
  return cudaSuccess;
}

cudaError_t attend(const AttendLaunch& launch, const Queue& queue) {
  const bool fast = launch.heads_are.scoring || launch.heads_are.other;
  const auto code = fast ? attend_rows(launch, queue) : cudaSuccess;
  return code == cudaSuccess && launch.heads_are.slow ? attend_slow_heads(launch, queue) : code;
}

}  // namespace a2sf::cuda
