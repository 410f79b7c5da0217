// What one block finds in its partition of a head's slots, for the row of a step.
#pragma once

#include <cfloat>

#include "kernels/cuda/row_head.cuh"

namespace a2sf::cuda {

constexpr int kAttendThreads = 256;  // two for every slot of a partition
constexpr int kHeadsAtOnce = 4;      // query heads for which a key or value is read once
constexpr int kPiece = 8;            // dimensions that a thread reads at once
constexpr float kLog2E = 1.44269504F;

// A piece of a key or a value.
template <class Element>
struct alignas(16) Piece {
  Element x[kPiece];

  __device__ static Piece load(const Element* from) {
    Piece piece;
    for (int i = 0; i < static_cast<int>(sizeof(Piece) / 16); ++i)
      reinterpret_cast<uint4*>(&piece)[i] = reinterpret_cast<const uint4*>(from)[i];
    return piece;
  }
  // As a slot would give back what is stored in it.
  __device__ static Piece stored(const float* from) {
    Piece piece;
    for (int i = 0; i < kPiece; ++i) store(piece.x[i], from[i]);
    return piece;
  }
};

// What the blocks of a head leave for the last of them.
struct Workspace {
  float* logits;   // [group][most slots]: to base 2; -FLT_MAX: the row does not see the slot
  float* maxima;   // [partition][group]
  float* sums;     // [partition][group]: of 2^(logit - maximum)
  float* outputs;  // [partition][group][dim]

  __device__ explicit Workspace(const AttendLaunch& launch) {
    const std::int64_t group = launch.heads / launch.kv_heads, partitions = partitions_of(launch.most_slots);
    logits = launch.scratch + unit_of_block(launch) * unit_floats(launch);
    maxima = logits + group * launch.most_slots;
    sums = maxima + partitions * group;
    outputs = sums + partitions * group;
  }
};

template <class Element>
class Partition : public RowHead<Element> {
  using Base = RowHead<Element>;

 public:
  static std::size_t shared_bytes(int group, int dim) {
    return Base::shared_bytes(group, dim) +
           sizeof(float) * static_cast<std::size_t>(group * kPartition + kHeadsAtOnce * kAttendThreads * kPiece);
  }

 protected:
  using Base::dim_, Base::group_, Base::launch_, Base::q_, Base::slots_, Base::span_, Base::state_, Base::stride_,
      Base::thread;

  __device__ Partition(const AttendLaunch& launch, const DeviceSpan& span, double* shared)
      : Base(launch, span, static_cast<int>(blockIdx.x), shared),
        workspace_(launch),
        numerators_(this->v_ + stride_),
        of_teams_(numerators_ + group_ * kPartition),
        pieces_(stride_ / kPiece),
        teams_of_warp_(kWarp / pieces_),
        team_(thread() / kWarp * teams_of_warp_ + thread() % kWarp / pieces_),
        has_team_(thread() % kWarp < teams_of_warp_ * pieces_) {}

  __device__ static int index() { return static_cast<int>(blockIdx.z); }
  __device__ std::int64_t part(int partition, int g) const { return static_cast<std::int64_t>(partition) * group_ + g; }

  // Asks for the first keys and values. `arrives`: the slot of the row's own token, which comes from shared memory.
  __device__ void prefetch(int arrives) {
    arrives_ = arrives;
    used_ = max(state_.used, arrives + 1);
    position_ = slot() < used_ ? slots_.position(slot()) : -1;
#pragma unroll
    for (int i = 0; i < kAhead; ++i) keys_[i] = stored_key(i);
#pragma unroll
    for (int i = 0; i < kAhead; ++i) values_[i] = stored_value(i);
  }

  // Leaves in the workspace what these slots come to. False: a logit is not finite.
  __device__ bool attend() {
    for (int i = thread(); i < group_ * stride_; i += kAttendThreads) q_[i] *= launch_.scale * kLog2E;
    __syncthreads();
    bool finite = true;
    for (int g = 0; g < group_; g += kHeadsAtOnce) finite &= multiply_keys(g);
    if (__syncthreads_or(!finite)) return false;
    for (int g = thread() / kWarp; g < group_; g += kAttendThreads / kWarp) find_numerators(g);
    __syncthreads();
    for (int g = 0; g < group_; g += kHeadsAtOnce) weigh_values(g);
    return true;
  }

  // Whether all other blocks of the head have left what they found.
  __device__ bool is_last_of(int partitions) const {
    if (partitions == 1) return __syncthreads_or(1);
    __threadfence();
    __syncthreads();
    int& arrivals = launch_.arrivals[unit_of_block(launch_)];
    const bool last = thread() == 0 && atomicAdd(&arrivals, 1) == partitions - 1;
    if (last) arrivals = 0;
    __threadfence();
    return __syncthreads_or(last);
  }

  Workspace workspace_;

 private:
  static constexpr int kAhead = sizeof(Element) == 2 ? 8 : 4;  // pieces of keys, and of values, that are asked for

  // Two neighbours share a slot's key: one takes the even pieces, the other the odd ones.
  __device__ int own() const { return thread() / 2; }
  __device__ int slot() const { return index() * kPartition + own(); }
  __device__ int key_piece(int i) const { return 2 * i + thread() % 2; }
  // A team of threads takes every `teams`-th value, a piece each.
  __device__ int teams() const { return kAttendThreads / kWarp * teams_of_warp_; }
  __device__ int value_piece() const { return thread() % kWarp % pieces_; }
  __device__ int value_slot(int i) const { return index() * kPartition + i * teams() + team_; }

  __device__ Piece<Element> stored_key(int i) const {
    if (key_piece(i) >= pieces_ || slot() >= used_) return {};
    return Piece<Element>::load(slots_.key(slot()) + key_piece(i) * kPiece);
  }
  __device__ Piece<Element> stored_value(int i) const {
    if (!has_team_ || i * teams() + team_ >= kPartition || value_slot(i) >= used_) return {};
    return Piece<Element>::load(slots_.value(value_slot(i)) + value_piece() * kPiece);
  }

  // The key of this thread's slot against a few query heads. False: a logit is not finite.
  __device__ bool multiply_keys(int first_head) {
    float dots[kHeadsAtOnce] = {};
    const int heads = min(kHeadsAtOnce, group_ - first_head);
    for (int base = 0; 2 * base < pieces_; base += kAhead) {
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const int piece = key_piece(base + i);
        if (piece >= pieces_) break;
        Piece<Element> key = base == 0 ? keys_[i] : stored_key(base + i);
        if (slot() == arrives_) key = Piece<Element>::stored(this->k_ + piece * kPiece);
#pragma unroll
        for (int h = 0; h < kHeadsAtOnce; ++h) {
          const auto* const q =
              reinterpret_cast<const float4*>(q_ + min(first_head + h, group_ - 1) * stride_ + piece * kPiece);
          dots[h] = dot_of(q[0], key.x, dots[h]);
          dots[h] = dot_of(q[1], key.x + 4, dots[h]);
        }
      }
    }
    const bool seen = slot() == arrives_ || this->sees(position_);
    bool finite = true;
    for (int h = 0; h < heads; ++h) {
      const float sum = dots[h] + __shfl_xor_sync(kAllLanes, dots[h], 1);
      const float logit = seen ? sum : -FLT_MAX;
      finite &= isfinite(logit);
      if (thread() % 2 == 1) continue;
      numerators_[(first_head + h) * kPartition + own()] = logit;
      if (slot() < used_)
        workspace_.logits[static_cast<std::int64_t>(first_head + h) * launch_.most_slots + slot()] = logit;
    }
    return finite;
  }
  __device__ static float dot_of(float4 q, const Element* x, float sum) {
    return fmaf(q.w, to_float(x[3]),
                fmaf(q.z, to_float(x[2]), fmaf(q.y, to_float(x[1]), fmaf(q.x, to_float(x[0]), sum))));
  }

  // Softmax numerators of a query head, by one warp.
  __device__ void find_numerators(int g) {
    constexpr int kEach = kPartition / kWarp;
    const int lane = thread() % kWarp;
    float* const of_head = numerators_ + g * kPartition;
    float logits[kEach], largest = -FLT_MAX, sum = 0;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      logits[i] = of_head[i * kWarp + lane];
      largest = fmaxf(largest, logits[i]);
    }
    largest = over_warp(largest, Largest());
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const float numerator = logits[i] == -FLT_MAX ? 0 : exp2f(logits[i] - largest);
      of_head[i * kWarp + lane] = numerator;
      sum += numerator;
    }
    sum = over_warp(sum, Sum());
    if (lane != 0) return;
    workspace_.maxima[part(index(), g)] = largest;
    workspace_.sums[part(index(), g)] = sum;
  }

  // The values weighed by the numerators of a few query heads.
  __device__ void weigh_values(int first_head) {
    const int heads = min(kHeadsAtOnce, group_ - first_head);
    float sums[kHeadsAtOnce][kPiece] = {};
    for (int base = 0; base * teams() < kPartition; base += kAhead) {
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const int at = (base + i) * teams() + team_;
        if (!has_team_ || at >= kPartition || value_slot(base + i) >= used_) break;
        Piece<Element> value = base == 0 ? values_[i] : stored_value(base + i);
        if (value_slot(base + i) == arrives_) value = Piece<Element>::stored(this->v_ + value_piece() * kPiece);
#pragma unroll
        for (int h = 0; h < kHeadsAtOnce; ++h) {
          const float p = numerators_[min(first_head + h, group_ - 1) * kPartition + at];
          for (int j = 0; j < kPiece; ++j) sums[h][j] = fmaf(p, to_float(value.x[j]), sums[h][j]);
        }
      }
    }
    if (has_team_) {
#pragma unroll
      for (int h = 0; h < kHeadsAtOnce; ++h) {
        float* const to = of_teams_ + (team_ * kHeadsAtOnce + h) * stride_ + value_piece() * kPiece;
        for (int j = 0; j < kPiece; ++j) to[j] = sums[h][j];
      }
    }
    __syncthreads();
    for (int e = thread(); e < heads * dim_; e += kAttendThreads) {
      const int h = e / dim_, i = e % dim_;
      float sum = 0;
#pragma unroll 8
      for (int team = 0; team < teams(); ++team) sum += of_teams_[(team * kHeadsAtOnce + h) * stride_ + i];
      workspace_.outputs[part(index(), first_head + h) * dim_ + i] = sum;
    }
    __syncthreads();
  }

  float* numerators_;  // shared: [group][kPartition]; logits at first
  float* of_teams_;    // shared: [team][kHeadsAtOnce][stride]
  int pieces_, teams_of_warp_, team_;
  bool has_team_;
  int arrives_ = kNoSlot, used_ = 0;
  std::int32_t position_ = -1;
  Piece<Element> keys_[kAhead], values_[kAhead];
};

}  // namespace a2sf::cuda
