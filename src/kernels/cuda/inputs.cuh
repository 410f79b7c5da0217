// A row of a product's inputs, after its norm, in the form that the weights' format wants: 8 bits with a scale for 32
// columns, or floats.
#pragma once

#include "kernels/cuda/block.cuh"
#include "kernels/cuda/products.h"

namespace a2sf::cuda {

// x -> (x - mean) * scale * weight + bias
struct RowNorm {
  const float *weight, *bias;  // no weight: x
  float mean = 0, scale = 1;

  // All threads of a block together. `reduction`: a float of each warp, shared.
  __device__ RowNorm(const DeviceNorm& norm, const float* row, int columns, float* reduction)
      : weight(norm.weight), bias(norm.bias) {
    if (weight == nullptr) return;
    const auto count = static_cast<float>(columns);
    if (norm.subtracts_mean)
      mean = sum_over(
                 row, columns, [](float x) { return x; }, reduction) /
             count;
    const auto squared = [this](float x) { return (x - mean) * (x - mean); };
    scale = 1 / sqrtf(sum_over(row, columns, squared, reduction) / count + norm.epsilon);
  }
  __device__ float operator()(float x, int column) const {
    if (weight == nullptr) return x;
    const float normed = (x - mean) * scale * weight[column];
    return bias == nullptr ? normed : normed + bias[column];
  }

 private:
  // Eight loads at once, since a block has nothing else to do until they are there.
  template <class Term>
  __device__ static float sum_over(const float* row, int columns, Term term, float* reduction) {
    float sum = 0;
#pragma unroll 8
    for (int i = static_cast<int>(threadIdx.x); i < columns; i += static_cast<int>(blockDim.x)) sum += term(row[i]);
    return over_block(sum, Sum(), reduction);
  }
};

// Views of a row of `columns` inputs at `data`. unit(): number u of the units that the formats read.
template <class Unit>
class InputRow;

template <>
class InputRow<FloatUnit> {
 public:
  static constexpr int unit_bytes = 32;
  __device__ int quads() const { return units_ * unit_bytes / 16; }  // of 16 bytes
  __device__ InputRow(std::byte* data, int columns) : columns_(columns), units_((columns + 7) / 8), data_(data) {}

  __device__ FloatUnit unit(int u) const {
    FloatUnit x;
    *reinterpret_cast<float4*>(x.values) = halves()[u];
    *reinterpret_cast<float4*>(x.values + 4) = halves()[units_ + u];
    return x;
  }
  __device__ void fill(const float* row, const RowNorm& norm) const {
    auto* const values = reinterpret_cast<float*>(data_);
#pragma unroll 4
    for (int i = static_cast<int>(threadIdx.x); i < units_ * 8; i += static_cast<int>(blockDim.x))
      values[(i % 8 / 4 * units_ + i / 8) * 4 + i % 4] = i < columns_ ? norm(row[i], i) : 0;
  }

 private:
  // The first fours of all units, then the second ones: so neighbours read what lies side by side.
  __device__ const float4* halves() const { return reinterpret_cast<const float4*>(data_); }
  int columns_, units_;
  std::byte* data_;
};

template <>
class InputRow<QuantisedUnit> {
 public:
  static constexpr int unit_bytes = 40;
  __device__ int quads() const { return (units_ * unit_bytes + 15) / 16; }  // the last one perhaps half
  __device__ InputRow(std::byte* data, int columns) : units_(columns / 32), data_(data) {}

  __device__ QuantisedUnit unit(int u) const {
    const uint4 low = halves()[u], high = halves()[units_ + u];
    const float2 of_unit = scales()[u];
    return {{low.x, low.y, low.z, low.w}, {high.x, high.y, high.z, high.w}, of_unit.x, of_unit.y};
  }
  // Eight threads take a unit, four columns each.
  __device__ void fill(const float* row, const RowNorm& norm) const {
    const unsigned eight = 0xffU << threadIdx.x % kWarp / 8 * 8;
#pragma unroll 4
    for (int i = static_cast<int>(threadIdx.x); i < units_ * 8; i += static_cast<int>(blockDim.x)) {
      const float4 in = reinterpret_cast<const float4*>(row)[i];
      const float4 x = {norm(in.x, 4 * i), norm(in.y, 4 * i + 1), norm(in.z, 4 * i + 2), norm(in.w, 4 * i + 3)};
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
    }
  }

 private:
  __device__ static unsigned magnitude_of(float x) { return __float_as_uint(x) & 0x7fffffffU; }
  __device__ const uint4* halves() const { return reinterpret_cast<const uint4*>(data_); }
  __device__ std::uint32_t* words() const { return reinterpret_cast<std::uint32_t*>(data_); }
  __device__ float2* scales() const { return reinterpret_cast<float2*>(data_ + units_ * 32); }
  int units_;
  std::byte* data_;
};

}  // namespace a2sf::cuda
