#include "kernels/cuda/matmul.h"

#include "kernels/cuda/block.cuh"

namespace a2sf::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kRows = 8;      // that share a weight once it is read
constexpr int kOutputs = 2;   // of large matrices, that share an input once it is read
constexpr int kLarge = 8192;  // outputs

__device__ float4 four_at(const float* x) { return *reinterpret_cast<const float4*>(x); }

__device__ float dot(const Eight& w, float4 a, float4 b, float sum) {
  sum = fmaf(w.values[0], a.x, fmaf(w.values[1], a.y, fmaf(w.values[2], a.z, fmaf(w.values[3], a.w, sum))));
  return fmaf(w.values[4], b.x, fmaf(w.values[5], b.y, fmaf(w.values[6], b.z, fmaf(w.values[7], b.w, sum))));
}

// A warp computes `outputs` outputs of `rows` rows; a lane sums every 32nd group of eight columns, and then every 32nd
// of the columns that are left. So a sum's order depends on neither number.
template <class Format, int rows, int outputs>
__global__ void __launch_bounds__(kWarps* kWarp) multiply_rows(const __grid_constant__ ProductLaunch launch) {
  const auto all_outputs = static_cast<int>(launch.weight.rows), columns = static_cast<int>(launch.weight.columns);
  const int lane = static_cast<int>(threadIdx.x) % kWarp, first = static_cast<int>(blockIdx.y) * rows;
  const int first_output = static_cast<int>(blockIdx.x * kWarps + threadIdx.x / kWarp) * outputs;
  if (first_output >= all_outputs) return;
  const std::uint8_t* weights[outputs];
  const float* in[rows];
  float sums[outputs][rows] = {};
#pragma unroll
  for (int o = 0; o < outputs; ++o)
    weights[o] = launch.weight.data + min(first_output + o, all_outputs - 1) * launch.weight.row_bytes;
#pragma unroll
  for (int r = 0; r < rows; ++r)
    in[r] = launch.in + static_cast<std::int64_t>(min(first + r, launch.count - 1)) * columns;
  const int whole = columns % 8 == 0 ? columns : 0;  // else rows of inputs are not aligned
#pragma unroll 4
  for (int i = 8 * lane; i < whole; i += 8 * kWarp) {
    const int block = i / Format::block, part = i % Format::block / 8;
    Eight w[outputs];
#pragma unroll
    for (int o = 0; o < outputs; ++o) w[o] = Format::eight(weights[o] + block * Format::bytes, part);
#pragma unroll
    for (int r = 0; r < rows; ++r) {
      const float* const x = in[r] + block * Format::block;
      const float4 a = four_at(x + w[0].first), b = four_at(x + w[0].second);
#pragma unroll
      for (int o = 0; o < outputs; ++o) sums[o][r] = dot(w[o], a, b, sums[o][r]);
    }
  }
  for (int i = whole + lane; i < columns; i += kWarp) {
#pragma unroll
    for (int o = 0; o < outputs; ++o) {
      const float w = Format::value(weights[o] + i / Format::block * Format::bytes, i % Format::block);
#pragma unroll
      for (int r = 0; r < rows; ++r) sums[o][r] = fmaf(w, in[r][i], sums[o][r]);
    }
  }
#pragma unroll
  for (int o = 0; o < outputs; ++o) {
#pragma unroll
    for (int r = 0; r < rows; ++r) {
      const int output = first_output + o;
      float sum = over_warp(sums[o][r], Sum());
      if (lane != 0 || output >= all_outputs || first + r >= launch.count) continue;
      if (launch.bias != nullptr) sum += launch.bias[output];
      float& out = launch.out[static_cast<std::int64_t>(first + r) * all_outputs + output];
      out = launch.add ? out + sum : sum;
    }
  }
}

template <class Format, int rows, int outputs>
void enqueue(const ProductLaunch& launch, cudaStream_t stream) {
  const auto per_block = kWarps * outputs;
  const dim3 grid(static_cast<unsigned>((launch.weight.rows + per_block - 1) / per_block),
                  static_cast<unsigned>((launch.count + rows - 1) / rows));
  multiply_rows<Format, rows, outputs><<<grid, kWarps * kWarp, 0, stream>>>(launch);
}

}  // namespace

cudaError_t multiply(const ProductLaunch& launch, cudaStream_t stream) {
  const bool large = launch.weight.rows >= kLarge, single = launch.count == 1;
  const bool known = with_format(launch.weight.type, [&](auto format) {
    using Format = decltype(format);
    if (single && large) return enqueue<Format, 1, kOutputs>(launch, stream);
    if (single) return enqueue<Format, 1, 1>(launch, stream);
    if (large) return enqueue<Format, kRows, kOutputs>(launch, stream);
    enqueue<Format, kRows, 1>(launch, stream);
  });
  return known ? cudaGetLastError() : cudaErrorNotSupported;
}

}  // namespace a2sf::cuda
