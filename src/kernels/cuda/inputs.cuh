// A row of a product's inputs, after its norm, in the form that the weights' format wants: 8 bits with a scale for 32
// columns, or floats.
#pragma once

#include <cuda_pipeline_primitives.h>

#include "kernels/cuda/block.cuh"
#include "kernels/cuda/products.h"

namespace a2sf::cuda {

constexpr int kQuadsAtOnce = 4;  // that a thread has asked for before it uses one

// A row of floats, four at once; zeros follow its end.
struct Quads {
  const float* row;
  int columns;

  __device__ int count() const { return (columns + 3) / 4; }
  __device__ float4 operator()(int quad) const {
    if (columns % 4 == 0) return reinterpret_cast<const float4*>(row)[quad];
    return {at(4 * quad), at(4 * quad + 1), at(4 * quad + 2), at(4 * quad + 3)};
  }

 private:
  __device__ float at(int i) const { return i < columns ? row[i] : 0; }
};

// x -> (x - mean) * scale * weight + bias
struct RowNorm {
  Quads weight, bias;  // no weight: x
  float mean = 0, scale = 1;

  // All threads of a block together. `reduction`: a float of each warp, shared.
  __device__ RowNorm(const DeviceNorm& norm, const Quads& row, float* reduction)
      : weight{norm.weight, row.columns}, bias{norm.bias, row.columns} {
    if (weight.row == nullptr) return;
    const auto count = static_cast<float>(row.columns);
    if (norm.subtracts_mean)
      mean = sum_over(
                 row, [](float x) { return x; }, reduction) /
             count;
    const auto squared = [this](float x) { return (x - mean) * (x - mean); };
    scale = 1 / sqrtf(sum_over(row, squared, reduction) / count + norm.epsilon);
  }
  // Number `quad` of the row; zeros still follow its end.
  __device__ float4 operator()(const float4& x, int quad) const {
    if (weight.row == nullptr) return x;
    const float4 w = weight(quad), b = bias.row == nullptr ? float4{} : bias(quad);
    return {(x.x - mean) * scale * w.x + b.x, (x.y - mean) * scale * w.y + b.y, (x.z - mean) * scale * w.z + b.z,
            (x.w - mean) * scale * w.w + b.w};
  }

 private:
  template <class Term>
  __device__ static float sum_over(const Quads& row, Term term, float* reduction) {
    float sum = 0;
    for_loaded<kQuadsAtOnce>(row.count(), row, [&](int quad, const float4& x) {
      const float values[4] = {x.x, x.y, x.z, x.w};
      for (int e = 0; e < 4; ++e)
        if (4 * quad + e < row.columns) sum += term(values[e]);
    });
    return over_block(sum, Sum(), reduction);
  }
};

// Views of a row of `columns` inputs at `data`. unit(): number u of the units that the formats read. fill(): by
// `workers` threads, whole warps, of which this is number `worker`.
template <class Unit>
class InputRow;

template <>
class InputRow<FloatUnit> {
 public:
  static constexpr int unit_bytes = 32;
  __device__ InputRow(std::byte* data, int columns) : units_((columns + 7) / 8), data_(data) {}

  __device__ FloatUnit unit(int u) const {
    FloatUnit x;
    *reinterpret_cast<float4*>(x.values) = halves()[u];
    *reinterpret_cast<float4*>(x.values + 4) = halves()[units_ + u];
    return x;
  }
  __device__ void fill(const Quads& row, const RowNorm& norm, int worker, int workers) const {
    auto* const halves = reinterpret_cast<float4*>(data_);
    for_loaded<kQuadsAtOnce>(row.count(), worker, workers, row,
                             [&](int i, const float4& x) { halves[i % 2 * units_ + i / 2] = norm(x, i); });
    if (worker == 0 && row.count() < 2 * units_) halves[2 * units_ - 1] = {};
  }

 private:
  // The first fours of all units, then the second ones: so neighbours read what lies side by side.
  __device__ const float4* halves() const { return reinterpret_cast<const float4*>(data_); }
  int units_;
  std::byte* data_;
};

template <>
class InputRow<QuantisedUnit> {
 public:
  static constexpr int unit_bytes = 40;
  __device__ InputRow(std::byte* data, int columns) : units_(columns / 32), data_(data) {}

  __device__ QuantisedUnit unit(int u) const {
    const uint4 low = halves()[u], high = halves()[units_ + u];
    const float2 of_unit = scales()[u];
    return {{low.x, low.y, low.z, low.w}, {high.x, high.y, high.z, high.w}, of_unit.x, of_unit.y};
  }
  // Eight threads take a unit, four columns each.
  __device__ void fill(const Quads& row, const RowNorm& norm, int worker, int workers) const {
    const unsigned eight = 0xffU << threadIdx.x % kWarp / 8 * 8;
    for_loaded<kQuadsAtOnce>(units_ * 8, worker, workers, row, [&](int i, const float4& in) {
      const float4 x = norm(in, i);
      // As numbers, so that one that is not finite makes the scale such a number too.
      unsigned magnitude = max(max(magnitude_of(x.x), magnitude_of(x.y)), max(magnitude_of(x.z), magnitude_of(x.w)));
      for (int distance = 4; distance > 0; distance /= 2)
        magnitude = max(magnitude, __shfl_xor_sync(eight, magnitude, distance));
      const float largest = __uint_as_float(magnitude);
      const float scale = largest / 127, factor = largest == 0 ? 0 : 127 / largest;
      const int q[4] = {__float2int_rn(x.x * factor), __float2int_rn(x.y * factor), __float2int_rn(x.z * factor),
                        __float2int_rn(x.w * factor)};
      int sum = q[0] + q[1] + q[2] + q[3];
      for (int distance = 4; distance > 0; distance /= 2) sum += __shfl_xor_sync(eight, sum, distance);
      const int u = i / 8, word = i % 8;
      words()[(word / 4 * units_ + u) * 4 + word % 4] =
          static_cast<std::uint32_t>((q[0] & 255) | (q[1] & 255) << 8 | (q[2] & 255) << 16 | (q[3] & 255) << 24);
      if (word == 0) scales()[u] = {scale, scale * static_cast<float>(sum)};
    });
  }

 private:
  __device__ static unsigned magnitude_of(float x) { return __float_as_uint(x) & 0x7fffffffU; }
  __device__ const uint4* halves() const { return reinterpret_cast<const uint4*>(data_); }
  __device__ std::uint32_t* words() const { return reinterpret_cast<std::uint32_t*>(data_); }
  __device__ float2* scales() const { return reinterpret_cast<float2*>(data_ + units_ * 32); }
  int units_;
  std::byte* data_;
};

template <class Format>
using RowOf = InputRow<typename Format::Input>;

// Inputs of the only row, which every block keeps for itself.
template <class Format>
class OwnInputs {
 public:
  // Asks for what is there before the kernel must wait: the weights of the norm.
  __device__ OwnInputs(const ProductsLaunch& launch, std::byte* shared)
      : launch_(launch), row_(shared, launch.columns), norm_(launch.norm) {
    if (launch.norm.weight == nullptr || launch.columns % 4 != 0) return;
    auto* const weights = shared + row_bytes(launch.columns);
    copy(weights, launch.norm.weight, launch.columns / 4);
    norm_.weight = reinterpret_cast<const float*>(weights);
  }
  __device__ RowOf<Format> take() {
    __shared__ float reduction[kMostWarps];
    const Quads in{launch_.in, launch_.columns};
    const RowNorm norm(norm_, in, reduction);
    __pipeline_wait_prior(0);
    __syncthreads();
    row_.fill(in, norm, static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x));
    __syncthreads();
    return row_;
  }
  __host__ __device__ static int row_bytes(int columns) {
    return ((columns + Format::unit - 1) / Format::unit * RowOf<Format>::unit_bytes + 15) / 16 * 16;
  }
  __host__ __device__ static int shared_bytes(const ProductsLaunch& launch) {
    return row_bytes(launch.columns) + (launch.norm.weight == nullptr ? 0 : (launch.columns + 3) / 4 * 16);
  }

 private:
  static constexpr int kMostWarps = 8;
  // Of 16 bytes each; they are there after __pipeline_wait_prior(0).
  __device__ static void copy(std::byte* to, const void* from, int quads) {
    for (int i = static_cast<int>(threadIdx.x); i < quads; i += static_cast<int>(blockDim.x))
      __pipeline_memcpy_async(to + 16 * i, static_cast<const std::byte*>(from) + 16 * i, 16);
    __pipeline_commit();
  }

  const ProductsLaunch& launch_;
  RowOf<Format> row_;
  DeviceNorm norm_;
};

}  // namespace a2sf::cuda
