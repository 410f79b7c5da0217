// Attention row by row in three kernels, so that many blocks share a head: its token comes, partitions of its slots
// attend, and what they found is put together, scores A, evicts. Where the partitions lie and the order of every sum
// depends on the head's own slots alone.
#include <cfloat>

#include "kernels/cuda/row_head.cuh"

namespace a2sf::cuda {
namespace {

constexpr int kThreads = 128;    // a slot each, in attend_partitions
constexpr int kHeadsAtOnce = 4;  // query heads for which a key or value is read once
constexpr float kLog2E = 1.44269504F;

__device__ float2 two_at(const float* x) { return *reinterpret_cast<const float2*>(x); }
__device__ float2 two_at(const __half* x) { return __half22float2(*reinterpret_cast<const __half2*>(x)); }

// What the kernels of a row leave for each other, of one KV head of a sequence.
struct Workspace {
  float* queries;  // [group][dim]: times scale, to base 2
  float* logits;   // [group][most slots]: to base 2; -FLT_MAX: the slot is free
  float* maxima;   // [partition][group]
  float* sums;     // [partition][group]: of 2^(logit - maximum)
  float* outputs;  // [partition][group][dim]

  __device__ explicit Workspace(const AttendLaunch& launch) {
    const std::int64_t group = launch.heads / launch.kv_heads, partitions = partitions_of(launch.most_slots);
    queries = launch.scratch + unit_of_block(launch) * unit_floats(launch);
    logits = queries + group * launch.head_dim;
    maxima = logits + group * launch.most_slots;
    sums = maxima + partitions * group;
    outputs = sums + partitions * group;
  }
};

// Whether the row of this block is one to be attended to here.
__device__ bool takes_part(const AttendLaunch& launch, int row) {
  const DeviceSpan& span = launch.spans[blockIdx.y];
  const int head = launch.layer * launch.kv_heads + static_cast<int>(blockIdx.x);
  return row < span.rows && span.sequence.heads[head].mode != RetentionMode::oracle;
}

template <class Element>
class BeginRow : public RowHead<Element> {
 public:
  __device__ BeginRow(const AttendLaunch& launch, const DeviceSpan& span, int kv_head, double* shared)
      : RowHead<Element>(launch, span, kv_head, shared) {}

  __device__ void run(int row) {
    if (!this->begin_row(row)) return;
    float* const queries = Workspace(this->launch_).queries;
    for (int i = this->thread(); i < this->group_ * this->dim_; i += this->threads())
      queries[i] = this->q_[i] * this->launch_.scale * kLog2E;
    this->keep_state();
  }
};

template <class Element>
class Partition {
 public:
  __device__ Partition(const AttendLaunch& launch, const DeviceSpan& span, double* shared)
      : launch_(launch),
        group_(launch.heads / launch.kv_heads),
        dim_(launch.head_dim),
        slots_(span.sequence, launch.layer * launch.kv_heads + static_cast<int>(blockIdx.x), dim_),
        used_(span.sequence.heads[launch.layer * launch.kv_heads + static_cast<int>(blockIdx.x)].used),
        first_(static_cast<int>(blockIdx.z) * kPartition),
        workspace_(launch),
        reduction_(shared),
        queries_(reinterpret_cast<float*>(shared + kThreads / kWarp)),
        numerators_(queries_ + group_ * dim_) {}

  static std::size_t shared_bytes(int group, int dim) {
    return sizeof(double) * (kThreads / kWarp) + sizeof(float) * static_cast<std::size_t>(group * (dim + kPartition)) +
           sizeof(float) * kHeadsAtOnce * 2 * kThreads;
  }

  __device__ void run(std::int64_t now) {
    if (first_ >= used_) return;
    for (int i = static_cast<int>(threadIdx.x); i < group_ * dim_; i += kThreads) queries_[i] = workspace_.queries[i];
    __syncthreads();
    for (int g = 0; g < group_; g += kHeadsAtOnce) multiply_key(g);
    for (int g = 0; g < group_; ++g) {
      if (!normalise(g)) return report_failure(launch_, FailureCause::attention, now);
    }
    for (int g = 0; g < group_; g += kHeadsAtOnce) weigh_values(g);
  }

 private:
  __device__ int slot() const { return first_ + static_cast<int>(threadIdx.x); }
  __device__ float& logit(int query_head) const {
    return workspace_.logits[static_cast<std::int64_t>(query_head) * launch_.most_slots + slot()];
  }
  __device__ std::int64_t part(int query_head) const {
    return static_cast<std::int64_t>(blockIdx.z) * group_ + query_head;
  }

  // The key of this thread's slot against a few query heads.
  __device__ void multiply_key(int first_head) {
    if (slot() >= used_) return;
    const bool seen = slots_.position(slot()) >= 0;
    float dots[kHeadsAtOnce] = {};
    const Element* const key = slots_.key(slot());
#pragma unroll 8
    for (int i = 0; i < dim_ / 2 * 2; i += 2) {
      const float2 k = two_at(key + i);
#pragma unroll
      for (int h = 0; h < kHeadsAtOnce; ++h) {
        const float* const q = queries_ + min(first_head + h, group_ - 1) * dim_ + i;
        dots[h] = fmaf(q[1], k.y, fmaf(q[0], k.x, dots[h]));
      }
    }
    for (int h = 0; h < kHeadsAtOnce && first_head + h < group_; ++h) {
      if (dim_ % 2 == 1) dots[h] = fmaf(queries_[(first_head + h + 1) * dim_ - 1], to_float(key[dim_ - 1]), dots[h]);
      logit(first_head + h) = seen ? dots[h] : -FLT_MAX;
    }
  }

  // Softmax numerators of a query head. False: a logit is not finite.
  __device__ bool normalise(int g) {
    const bool is_used = slot() < used_;
    const float x = is_used ? logit(g) : -FLT_MAX;
    if (__syncthreads_or(!isfinite(x))) return false;
    const float largest = over_block(x, Largest(), reduction_);
    const float numerator = x == -FLT_MAX ? 0 : exp2f(x - largest);
    numerators_[g * kPartition + static_cast<int>(threadIdx.x)] = numerator;
    const float sum = over_block(numerator, Sum(), reduction_);
    if (threadIdx.x == 0) {
      workspace_.maxima[part(g)] = largest;
      workspace_.sums[part(g)] = sum;
    }
    return true;
  }

  // The values weighed by the numerators of a few query heads. A thread takes two dimensions of every `teams`-th slot.
  __device__ void weigh_values(int first_head) {
    const int pairs = (dim_ + 1) / 2, teams = max(1, kThreads / pairs);
    float* const of_teams = numerators_ + group_ * kPartition;  // [query head][2][thread]
    const int heads = min(kHeadsAtOnce, group_ - first_head), count = min(kPartition, used_ - first_);
    for (int start = 0; start < pairs; start += kThreads) {
      const int team = static_cast<int>(threadIdx.x) / pairs, pair = start + static_cast<int>(threadIdx.x) % pairs;
      const bool works = team < teams && pair < pairs;
      const int dimension = 2 * pair;
      float2 sums[kHeadsAtOnce] = {};
      for (int i = team; works && i < count; i += teams) {
        const float2 v = two_at(slots_.value(first_ + i) + dimension);
#pragma unroll
        for (int h = 0; h < kHeadsAtOnce; ++h) {
          const float p = numerators_[min(first_head + h, group_ - 1) * kPartition + i];
          sums[h].x = fmaf(p, v.x, sums[h].x);
          sums[h].y = fmaf(p, v.y, sums[h].y);
        }
      }
      __syncthreads();
#pragma unroll
      for (int h = 0; h < kHeadsAtOnce; ++h) {
        of_teams[(2 * h) * kThreads + static_cast<int>(threadIdx.x)] = sums[h].x;
        of_teams[(2 * h + 1) * kThreads + static_cast<int>(threadIdx.x)] = sums[h].y;
      }
      __syncthreads();
      if (!works || team > 0) continue;
      for (int h = 0; h < heads; ++h) {
        for (int odd = 0; odd < 2 && dimension + odd < dim_; ++odd) {
          float sum = 0;
          for (int t = 0; t < teams; ++t)
            sum += of_teams[(2 * h + odd) * kThreads + t * pairs + static_cast<int>(threadIdx.x)];
          workspace_.outputs[part(first_head + h) * dim_ + dimension + odd] = sum;
        }
      }
    }
    __syncthreads();
  }

  const AttendLaunch& launch_;
  int group_, dim_;
  Slots<Element> slots_;
  int used_, first_;
  Workspace workspace_;
  double* reduction_;  // shared
  float* queries_;     // shared: [group][dim]
  float* numerators_;  // shared: [group][kPartition]
};

template <class Element>
class FinishRow : public RowHead<Element> {
  using Base = RowHead<Element>;
  using Base::dim_, Base::group_, Base::kv_head_, Base::launch_, Base::slots_, Base::span_, Base::state_;

 public:
  __device__ FinishRow(const AttendLaunch& launch, const DeviceSpan& span, int kv_head, double* shared)
      : Base(launch, span, kv_head, shared),
        workspace_(launch),
        maxima_(this->q_),
        factors_(maxima_ + group_),
        partitions_(partitions_of(state_.used)) {}

  __device__ void run(int row) {
    if (__syncthreads_or(this->thread() == 0 && this->failure().cause != 0)) return;
    this->now_ = span_.first_position + row;
    for (int g = 0; g < group_; ++g) find_denominator(g);
    write_output(row);
    if (state_.mode != RetentionMode::score) return;
    this->for_slots([&](int slot) { update_score(slot); });
    __syncthreads();
    this->evict(row, [&](int slot) { return given(slot); });
    this->keep_state();
  }

 private:
  __device__ std::int64_t part(int partition, int g) const { return static_cast<std::int64_t>(partition) * group_ + g; }
  __device__ float probability(int g, int slot) const {
    return exp2f(workspace_.logits[static_cast<std::int64_t>(g) * launch_.most_slots + slot] - maxima_[g]) *
           factors_[g];
  }
  __device__ float given(int slot) const {
    float sum = 0;
    for (int g = 0; g < group_; ++g) sum += probability(g, slot);
    return sum;
  }

  // The softmax of query head g is 2^(logit - maxima_[g]) * factors_[g].
  __device__ void find_denominator(int g) {
    float largest = -FLT_MAX, sum = 0;
    for (int i = this->thread(); i < partitions_; i += this->threads())
      largest = fmaxf(largest, workspace_.maxima[part(i, g)]);
    largest = this->reduce(largest, Largest());
    for (int i = this->thread(); i < partitions_; i += this->threads())
      sum += workspace_.sums[part(i, g)] * exp2f(workspace_.maxima[part(i, g)] - largest);
    sum = this->reduce(sum, Sum());
    if (this->thread() == 0) {
      maxima_[g] = largest;
      factors_[g] = 1 / sum;
    }
    __syncthreads();
  }

  __device__ void write_output(int row) const {
    float* const out =
        launch_.out + (static_cast<std::int64_t>(span_.first_row + row) * launch_.heads + kv_head_ * group_) * dim_;
    for (int e = this->thread(); e < group_ * dim_; e += this->threads()) {
      const int g = e / dim_;
      float sum = 0;
      for (int i = 0; i < partitions_; ++i) {
        const float factor = exp2f(workspace_.maxima[part(i, g)] - maxima_[g]);
        sum = fmaf(workspace_.outputs[part(i, g) * dim_ + e % dim_], factor, sum);
      }
      out[e] = sum * factors_[g];
    }
  }

  __device__ void update_score(int slot) {
    if (slots_.position(slot) < 0) return;
    float sum = 0;
    for (int g = 0; g < group_; ++g) sum += this->addition(probability(g, slot));
    slots_.score(slot) = fmaf(state_.alpha, slots_.score(slot), sum);
  }

  Workspace workspace_;
  float *maxima_, *factors_;  // shared: [group]
  int partitions_;
};

__global__ void __launch_bounds__(kThreads) begin_rows(const __grid_constant__ AttendLaunch launch, int row) {
  extern __shared__ double shared[];
  if (!takes_part(launch, row)) return;
  const DeviceSpan& span = launch.spans[blockIdx.y];
  if (span.f16) {
    BeginRow<__half>(launch, span, static_cast<int>(blockIdx.x), shared).run(row);
  } else {
    BeginRow<float>(launch, span, static_cast<int>(blockIdx.x), shared).run(row);
  }
}

__global__ void __launch_bounds__(kThreads) attend_partitions(const __grid_constant__ AttendLaunch launch, int row) {
  extern __shared__ double shared[];
  // Failures are reported while this runs: the threads of a block must see the same.
  if (!takes_part(launch, row) || __syncthreads_or(threadIdx.x == 0 && launch.failures[blockIdx.y].cause != 0)) return;
  const DeviceSpan& span = launch.spans[blockIdx.y];
  if (span.f16) {
    Partition<__half>(launch, span, shared).run(span.first_position + row);
  } else {
    Partition<float>(launch, span, shared).run(span.first_position + row);
  }
}

__global__ void __launch_bounds__(2 * kThreads) finish_rows(const __grid_constant__ AttendLaunch launch, int row) {
  extern __shared__ double shared[];
  if (!takes_part(launch, row)) return;
  const DeviceSpan& span = launch.spans[blockIdx.y];
  if (span.f16) {
    FinishRow<__half>(launch, span, static_cast<int>(blockIdx.x), shared).run(row);
  } else {
    FinishRow<float>(launch, span, static_cast<int>(blockIdx.x), shared).run(row);
  }
}

template <class Kernel>
cudaError_t allow_shared(Kernel kernel, std::size_t bytes) {
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
}

}  // namespace

cudaError_t attend_split(const AttendLaunch& launch, int rows, cudaStream_t stream) {
  const int group = launch.heads / launch.kv_heads;
  const std::size_t of_head = RowHead<float>::shared_bytes(group, launch.head_dim),
                    of_partition = Partition<float>::shared_bytes(group, launch.head_dim);
  if (const auto code = allow_shared(begin_rows, of_head); code != cudaSuccess) return code;
  if (const auto code = allow_shared(attend_partitions, of_partition); code != cudaSuccess) return code;
  if (const auto code = allow_shared(finish_rows, of_head); code != cudaSuccess) return code;
  const auto heads = static_cast<unsigned>(launch.kv_heads), spans = static_cast<unsigned>(launch.span_count);
  const auto partitions = static_cast<unsigned>(partitions_of(launch.most_slots));
  for (int row = 0; row < rows; ++row) {
    begin_rows<<<dim3(heads, spans), kThreads, of_head, stream>>>(launch, row);
    attend_partitions<<<dim3(heads, spans, partitions), kThreads, of_partition, stream>>>(launch, row);
    finish_rows<<<dim3(heads, spans), 2 * kThreads, of_head, stream>>>(launch, row);
  }
  return cudaGetLastError();
}

}  // namespace a2sf::cuda
