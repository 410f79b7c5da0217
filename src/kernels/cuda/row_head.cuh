// A row of a KV head before it attends: its queries, its key and its value, after the norms of the heads and rotation.
#pragma once

#include <cuda_pipeline_primitives.h>

#include "kernels/cuda/head_slots.cuh"

namespace a2sf::cuda {

template <class Element>
class RowHead : public HeadSlots<Element> {
  using Base = HeadSlots<Element>;

 public:
  // Bytes of shared memory that it works in: a multiple of 16.
  static std::size_t shared_bytes(int group, int dim) {
    return Base::kReductionBytes + sizeof(float) * static_cast<std::size_t>((group + 3) * padded(dim));
  }

 protected:
  using Base::group_, Base::kv_head_, Base::launch_, Base::slots_, Base::span_, Base::thread, Base::threads;

  __device__ RowHead(const AttendLaunch& launch, const DeviceSpan& span, int kv_head, int row, double* shared)
      : Base(launch, span, launch.layer, kv_head, row, shared),
        row_(span.first_row + row),
        dim_(launch.head_dim),
        stride_(padded(launch.head_dim)),
        q_(reinterpret_cast<float*>(shared + Base::kMostWarps)),
        k_(q_ + group_ * stride_),
        v_(k_ + stride_),
        turns_(reinterpret_cast<float2*>(v_ + stride_)) {}

  // Asks for the row's rotations, which are there since the step began.
  __device__ void ask_for_rotations() const {
    const float2* const turns = launch_.rotations + static_cast<std::int64_t>(row_) * launch_.rope.pairs;
    for (int i = thread(); i < launch_.rope.pairs; i += threads())
      __pipeline_memcpy_async(turns_ + i, turns + i, sizeof(float2));
    __pipeline_commit();
  }

  // After ask_for_rotations(): norms of the heads and rotation. q_, k_ and v_ are what the row attends with.
  __device__ void read() {
    constexpr int kAtOnce = 8;
    const float* const q = launch_.q + (static_cast<std::int64_t>(row_) * launch_.heads + kv_head_ * group_) * dim_;
    const std::int64_t at = (static_cast<std::int64_t>(row_) * launch_.kv_heads + kv_head_) * dim_;
    const auto load = [&](int e) {
      const int h = e / stride_, i = e % stride_;
      const float* const in = h < group_ ? q + h * dim_ : (h == group_ ? launch_.k : launch_.v) + at;
      return i < dim_ ? in[i] : 0;
    };
    for_loaded<kAtOnce>((group_ + 2) * stride_, load, [this](int e, float x) { q_[e] = x; });
    __pipeline_wait_prior(0);
    __syncthreads();
    normalise();
    rotate();
  }

  // A warp takes a head at a time.
  __device__ void normalise() const {
    if (launch_.q_norm.weight == nullptr && launch_.k_norm.weight == nullptr) return;
    for (int h = thread() / kWarp; h <= group_; h += threads() / kWarp)
      normalise(q_ + h * stride_, h < group_ ? launch_.q_norm : launch_.k_norm);
    __syncthreads();
  }
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

  __device__ void rotate() const {
    const DeviceRope& rope = launch_.rope;
    for (int e = thread(); e < (group_ + 1) * rope.pairs; e += threads()) {
      const int i = e % rope.pairs;
      float* const x = q_ + e / rope.pairs * stride_;  // the last one is the key
      float& first = x[rope.interleaved ? 2 * i : i];
      float& second = x[rope.interleaved ? 2 * i + 1 : i + rope.pairs];
      const float2 turn = turns_[i];
      const float first0 = first, second0 = second;
      first = first0 * turn.x - second0 * turn.y;
      second = first0 * turn.y + second0 * turn.x;
    }
    __syncthreads();
  }

  // Into the slot of the row's token.
  __device__ void store_token(int slot) const {
    for (int i = thread(); i < dim_; i += threads()) {
      store(slots_.key(slot)[i], k_[i]);
      store(slots_.value(slot)[i], v_[i]);
    }
  }

  int row_;  // of the step
  int dim_;
  int stride_;          // dim_ with the zeros that a key in its slot ends with
  float *q_, *k_, *v_;  // shared: [group][stride], [stride], [stride], one after the other
  float2* turns_;       // shared: [pair]
};

}  // namespace a2sf::cuda
