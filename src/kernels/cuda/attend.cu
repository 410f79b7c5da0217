#include "kernels/cuda/attend.h"

#include <cfloat>

#include "kernels/cuda/block.cuh"
#include "kernels/cuda/slots.cuh"
#include "kernels/cuda/victim.cuh"
#include "kernels/span_failures.h"

namespace a2sf::cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::uint64_t kNobody = ~std::uint64_t{0};

// One KV head of one sequence. All threads of a block run it together; its members are the same in all of them.
template <class Element>
class HeadTask {
 public:
  __device__ HeadTask(const AttendLaunch& launch, const DeviceSpan& span, int kv_head, float* shared)
      : launch_(launch),
        span_(span),
        kv_head_(kv_head),
        group_(launch.heads / launch.kv_heads),
        dim_(launch.head_dim),
        head_(launch.layer * launch.kv_heads + kv_head),
        state_(span.sequence.heads[head_]),
        slots_(span.sequence, head_, launch.head_dim),
        q_(shared),
        k_(q_ + group_ * dim_),
        v_(k_ + dim_),
        reduction_(v_ + dim_ + (group_ + 2) * dim_ % 2) {
    const std::int64_t unit = static_cast<std::int64_t>(blockIdx.y) * launch.kv_heads + kv_head;
    probabilities_ = launch.scratch + unit * (group_ + 1) * launch.most_slots;
    given_ = probabilities_ + static_cast<std::int64_t>(group_) * launch.most_slots;
  }

  __device__ void run() {
    for (int row = 0; row < span_.rows; ++row) {
      if (__syncthreads_or(threadIdx.x == 0 && failure().cause != 0)) break;
      if (!attend_row(row)) break;
    }
    if (threadIdx.x != 0) return;
    in_memory().used = state_.used;
    in_memory().occupied = state_.occupied;
    in_memory().values_seen = state_.values_seen;
  }

 private:
  __device__ DeviceFailure& failure() const { return launch_.failures[blockIdx.y]; }

  __device__ bool fail(FailureCause cause) {
    if (threadIdx.x == 0 && atomicCAS(&failure().cause, 0, static_cast<int>(cause) + 1) == 0) {
      failure().layer = launch_.layer;
      failure().kv_head = kv_head_;
      failure().position = now_;
    }
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
    for (int slot = static_cast<int>(threadIdx.x); slot < state_.used; slot += kThreads) function(slot);
  }

  __device__ bool attend_row(int row) {
    now_ = span_.first_position + row;
    const bool last_of_prompt = span_.prompt_ends && row == span_.rows - 1 && span_.in_prompt;
    expire();
    read(span_.first_row + row);
    if (__syncthreads_or(!is_finite(k_, dim_) || !is_finite(v_, dim_))) return fail(FailureCause::attention);
    const int slot = place();
    if (slot < 0) return fail(FailureCause::eviction);
    insert(slot);
    if (!attend_to([](int) { return true; })) return fail(FailureCause::attention);
    if (state_.mode == RetentionMode::score) update_scores();
    if (state_.mode == RetentionMode::oracle) attend_to_ideal();
    weigh_values(launch_.out +
                 (static_cast<std::int64_t>(span_.first_row + row) * launch_.heads + kv_head_ * group_) * dim_);
    if (state_.mode == RetentionMode::score && (!span_.in_prompt || last_of_prompt)) evict(last_of_prompt);
    return true;
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
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) finite &= isfinite(x[i]);
    return finite;
  }

  // Norms of the heads and rotation: q_, k_ and v_ are what the row attends with.
  __device__ void read(int row) {
    const float* const q = launch_.q + (static_cast<std::int64_t>(row) * launch_.heads + kv_head_ * group_) * dim_;
    const std::int64_t at = (static_cast<std::int64_t>(row) * launch_.kv_heads + kv_head_) * dim_;
    for (int i = static_cast<int>(threadIdx.x); i < group_ * dim_; i += kThreads) q_[i] = q[i];
    for (int i = static_cast<int>(threadIdx.x); i < dim_; i += kThreads) {
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
    for (int i = static_cast<int>(threadIdx.x); norm.subtracts_mean && i < dim_; i += kThreads) sum += x[i];
    const float mean = norm.subtracts_mean ? reduce(sum, Sum()) / columns : 0;
    for (int i = static_cast<int>(threadIdx.x); i < dim_; i += kThreads) squares += (x[i] - mean) * (x[i] - mean);
    const float scale = 1 / sqrtf(reduce(squares, Sum()) / columns + norm.epsilon);
    for (int i = static_cast<int>(threadIdx.x); i < dim_; i += kThreads)
      x[i] = (x[i] - mean) * scale * norm.weight[i] + (norm.bias == nullptr ? 0 : norm.bias[i]);
    __syncthreads();
  }

  __device__ void rotate() {
    const DeviceRope& rope = launch_.rope;
    for (int i = static_cast<int>(threadIdx.x); i < rope.pairs; i += kThreads) {
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
    for (int i = static_cast<int>(threadIdx.x); i < dim_; i += kThreads) {
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
    for (int i = static_cast<int>(threadIdx.x); i < dim_; i += kThreads) {
      const double mean = means[i] + (static_cast<double>(v_[i]) - means[i]) / seen;
      squares += (v_[i] - mean) * (v_[i] - mean);
      means[i] = static_cast<float>(mean);
    }
    squares = reduce(squares, Sum());
    if (threadIdx.x == 0) slots_.weight(slot) = static_cast<float>(fmin(sqrt(squares), kMostWeight));
  }

  // The softmax over the occupied slots that `sees` allows, and its sum over the group. False: a logit is not finite.
  template <class Sees>
  __device__ bool attend_to(Sees sees) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    bool finite = true;
    for (int slot = static_cast<int>(threadIdx.x) / kWarp; slot < state_.used; slot += kThreads / kWarp) {
      const bool seen = slots_.position(slot) >= 0 && sees(slot);
      const Element* const key = slots_.key(slot);
      for (int g = 0; g < group_; ++g) {
        float dot = 0;
        for (int i = lane; seen && i < dim_; i += kWarp) dot = fmaf(q_[g * dim_ + i], to_float(key[i]), dot);
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
      for (int g = 0; g < group_; ++g) sum += addition(probability(g, slot));
      slots_.score(slot) = fmaf(state_.alpha, slots_.score(slot), sum);
    });
    __syncthreads();
  }
  // What a probability adds to a score.
  __device__ float addition(float p) const {
    if (p < state_.threshold) return 0;
    return state_.power == 1 ? p : powf(p, state_.power);
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
    for (int i = static_cast<int>(threadIdx.x); i < group_ * dim_; i += kThreads) {
      const float* const p = &probability(i / dim_, 0);
      float sum = 0;
      for (int slot = 0; slot < state_.used; ++slot) sum = fmaf(p[slot], to_float(slots_.value(slot)[i % dim_]), sum);
      out[i] = sum;
    }
    __syncthreads();
  }

  // Step 4.
  __device__ void evict(bool at_once) {
    if (!at_once && state_.occupied < state_.budget + span_.block) return;
    while (state_.occupied > state_.budget) {
      const int victim = choose_victim(slots_, state_, now_, reduction_);
      if (victim < 0) break;
      if (threadIdx.x == 0) leave(victim, given_[victim]);
      --state_.occupied;
      __syncthreads();
    }
  }

  const AttendLaunch& launch_;
  const DeviceSpan& span_;
  int kv_head_, group_, dim_, head_;
  DeviceHead state_;
  Slots<Element> slots_;
  float *q_, *k_, *v_;    // shared: [group][dim], [dim], [dim]; the key follows the queries
  float* reduction_;      // shared
  float* probabilities_;  // [group][most slots]
  float* given_;          // [most slots]: their sum over the group
  std::int64_t now_ = 0;  // position of the row
};

__global__ void __launch_bounds__(kThreads) attend_rows(const __grid_constant__ AttendLaunch launch) {
  extern __shared__ double shared[];
  const DeviceSpan& span = launch.spans[blockIdx.y];
  auto* const floats = reinterpret_cast<float*>(shared);
  if (span.f16) {
    HeadTask<__half>(launch, span, static_cast<int>(blockIdx.x), floats).run();
  } else {
    HeadTask<float>(launch, span, static_cast<int>(blockIdx.x), floats).run();
  }
}

}  // namespace

std::size_t attend_scratch_floats(int span_count, int heads, int kv_heads, int most_slots) {
  return static_cast<std::size_t>(span_count) * static_cast<std::size_t>(heads + kv_heads) *
         static_cast<std::size_t>(most_slots);
}

cudaError_t attend(const AttendLaunch& launch, cudaStream_t stream) {
  const int group = launch.heads / launch.kv_heads;
  const std::size_t shared =
      sizeof(float) * static_cast<std::size_t>((group + 2) * launch.head_dim + 1) + sizeof(double) * (kThreads / kWarp);
  const cudaError_t code =
      cudaFuncSetAttribute(attend_rows, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
  if (code != cudaSuccess) return code;
  const dim3 grid(static_cast<unsigned>(launch.kv_heads), static_cast<unsigned>(launch.span_count));
  attend_rows<<<grid, kThreads, shared, stream>>>(launch);
  return cudaGetLastError();
}

}  // namespace a2sf::cuda
