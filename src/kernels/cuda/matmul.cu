#include "kernels/cuda/matmul.h"

#include "kernels/cuda/block.cuh"

namespace a2sf::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kRows = 8;  // that share a weight once it is read

// A warp computes one output of `rows` rows; every lane sums the columns of its number, modulo the warp.
template <class Format, int rows>
__global__ void __launch_bounds__(kWarps* kWarp) multiply_rows(const __grid_constant__ ProductLaunch launch) {
  const std::int64_t output = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, first = static_cast<int>(blockIdx.y) * rows;
  if (output >= launch.weight.rows) return;
  const auto columns = static_cast<int>(launch.weight.columns);
  const std::uint8_t* const weights = launch.weight.data + output * launch.weight.row_bytes;
  const float* in[rows];
  float sums[rows] = {};
  for (int r = 0; r < rows; ++r)
    in[r] = launch.in + static_cast<std::int64_t>(min(first + r, launch.count - 1)) * columns;
  for (int i = lane; i < columns; i += kWarp) {
    const float weight = Format::value(weights + i / Format::block * Format::bytes, i % Format::block);
    for (int r = 0; r < rows; ++r) sums[r] = fmaf(weight, in[r][i], sums[r]);
  }
  for (int r = 0; r < rows; ++r) {
    const float sum = over_warp(sums[r], Sum()) + (launch.bias == nullptr ? 0 : launch.bias[output]);
    if (lane != 0 || first + r >= launch.count) continue;
    float& out = launch.out[(first + r) * launch.weight.rows + output];
    out = launch.add ? out + sum : sum;
  }
}

}  // namespace

cudaError_t multiply(const ProductLaunch& launch, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>((launch.weight.rows + kWarps - 1) / kWarps);
  const bool known = with_format(launch.weight.type, [&](auto format) {
    using Format = decltype(format);
    if (launch.count == 1) {
      multiply_rows<Format, 1><<<blocks, kWarps * kWarp, 0, stream>>>(launch);
    } else {
      const dim3 grid(blocks, static_cast<unsigned>((launch.count + kRows - 1) / kRows));
      multiply_rows<Format, kRows><<<grid, kWarps * kWarp, 0, stream>>>(launch);
    }
  });
  return known ? cudaGetLastError() : cudaErrorNotSupported;
}

}  // namespace a2sf::cuda
