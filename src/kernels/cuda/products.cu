#include "kernels/cuda/products.h"

#include <algorithm>

#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/inputs.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rows.h"

namespace a2sf::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kRows = 8;                 // that share a weight once it is read
constexpr int kBlocks = 4;               // of one multiprocessor at once
constexpr int kSharedBytes = 200 << 10;  // of one multiprocessor, for them

// Writes an output of a row.
struct Finish {
  const ProductsLaunch& launch;

  __device__ static float biased(const OneProduct& product, int output, float sum) {
    return product.bias == nullptr ? sum : sum + product.bias[output];
  }
  __device__ static std::int64_t at(const OneProduct& product, int row, int output) {
    return static_cast<std::int64_t>(row) * product.weight.rows + output;
  }
  __device__ void write(int index, int row, int output, float sum) const {
    const OneProduct& product = launch.products[index];
    const float x = biased(product, output, sum);
    float& out = product.out[at(product, row, output)];
    out = product.add ? out + x : x;
  }
  __device__ void write_gated(int row, int output, float gate, float up) const {
    const OneProduct &first = launch.products[0], &second = launch.products[1];
    const float x = activated(launch.function, biased(first, output, gate));
    launch.gated[at(first, row, output)] = launch.product_count == 1 ? x : x * biased(second, output, up);
  }
};

template <class Format>
using RowOf = InputRow<typename Format::Input>;

// The inputs of many rows, for all blocks that multiply them.
template <class Format>
__global__ void __launch_bounds__(kThreads) prepare(const __grid_constant__ ProductsLaunch launch) {
  __shared__ float scratch[kWarps];
  let_next_begin();
  wait_for_previous();
  const auto row = static_cast<std::int64_t>(blockIdx.x);
  const float* const in = launch.in + row * launch.columns;
  const RowNorm norm(launch.norm, in, launch.columns, scratch);
  RowOf<Format>(launch.prepared + row * prepared_bytes(launch.columns), launch.columns).fill(in, norm);
}

// A warp computes an output of `rows` rows, or two that a gate wants together; a lane sums every 32nd unit of columns.
// So the order of a sum depends on neither number. Blocks stay until all outputs are there: inputs of one row are
// prepared once for each of them.
template <class Format, int rows, int matrices>
__global__ void __launch_bounds__(kThreads, rows == 1 ? kBlocks : 2)
    multiply_rows(const __grid_constant__ ProductsLaunch launch) {
  constexpr int kAhead = rows == 1 ? 4 / matrices : 1;  // units that a thread has asked for before it uses one
  using Unit = typename Format::Unit;
  extern __shared__ __align__(16) std::byte shared[];
  __shared__ float scratch[kWarps];
  let_next_begin();
  wait_for_previous();
  const int first_row = static_cast<int>(blockIdx.y) * rows, lane = static_cast<int>(threadIdx.x) % kWarp;
  if constexpr (rows == 1) {
    const RowNorm norm(launch.norm, launch.in, launch.columns, scratch);
    RowOf<Format>(shared, launch.columns).fill(launch.in, norm);
    __syncthreads();
  }
  const auto row_of = [&](int r) {
    if constexpr (rows == 1) return RowOf<Format>(shared, launch.columns);
    const auto row = static_cast<std::size_t>(min(first_row + r, launch.count - 1));
    return RowOf<Format>(launch.prepared + row * prepared_bytes(launch.columns), launch.columns);
  };
  const int units = (launch.columns + Format::unit - 1) / Format::unit;
  int outputs = 0;
  for (int p = 0; p < launch.product_count; p += matrices) outputs += static_cast<int>(launch.products[p].weight.rows);

  const auto warps = static_cast<int>(gridDim.x) * kWarps;
  for (int each = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / kWarp; each < outputs;
       each += warps) {
    int index = 0, output = each;
    while (output >= launch.products[index].weight.rows)
      output -= static_cast<int>(launch.products[index++].weight.rows);
    const std::uint8_t* weights[matrices];
#pragma unroll
    for (int m = 0; m < matrices; ++m)
      weights[m] = launch.products[index + m].weight.data + output * launch.products[index + m].weight.row_bytes;
    const Offsets& offsets = launch.products[index].weight.offsets;
    float sums[matrices][rows] = {};
    for (int first = lane; first < units; first += kAhead * kWarp) {
      Unit w[kAhead][matrices];
#pragma unroll
      for (int a = 0; a < kAhead; ++a) {
        const int u = min(first + a * kWarp, units - 1);
#pragma unroll
        for (int m = 0; m < matrices; ++m) w[a][m] = Format::load(weights[m], offsets, u);
      }
#pragma unroll
      for (int a = 0; a < kAhead; ++a) {
        const int u = first + a * kWarp;
        if (u >= units) break;
#pragma unroll
        for (int r = 0; r < rows; ++r) {
          const typename Format::Input x = row_of(r).unit(u);
#pragma unroll
          for (int m = 0; m < matrices; ++m) sums[m][r] += dot<Format>(w[a][m], x);
        }
      }
    }
    const Finish finish{launch};
#pragma unroll
    for (int r = 0; r < rows; ++r) {
      float all[2] = {};
#pragma unroll
      for (int m = 0; m < matrices; ++m) all[m] = over_warp(sums[m][r], Sum());
      if (lane != 0 || first_row + r >= launch.count) continue;
      if (launch.has_gate) {
        finish.write_gated(first_row + r, output, all[0], all[1]);
      } else {
        finish.write(index, first_row + r, output, all[0]);
      }
    }
  }
}

template <class Format, int rows, int matrices>
cudaError_t enqueue_rows(const ProductsLaunch& launch, const Queue& queue) {
  std::int64_t outputs = 0;
  for (int p = 0; p < launch.product_count; p += matrices) outputs += launch.products[p].weight.rows;
  const int units = (launch.columns + Format::unit - 1) / Format::unit;
  const int shared = rows == 1 ? units * RowOf<Format>::unit_bytes : 0;
  const int most = queue.multiprocessors * std::clamp(kSharedBytes / std::max(shared, 1), 1, kBlocks);
  const dim3 grid(static_cast<unsigned>(std::min<std::int64_t>((outputs + kWarps - 1) / kWarps, most)),
                  static_cast<unsigned>((launch.count + rows - 1) / rows));
  return enqueue(multiply_rows<Format, rows, matrices>, grid, kThreads, static_cast<std::size_t>(shared), queue,
                 launch);
}

template <class Format>
cudaError_t multiply_as(const ProductsLaunch& launch, const Queue& queue) {
  const bool pairs = launch.has_gate && launch.product_count == 2;
  if (launch.count == 1)
    return pairs ? enqueue_rows<Format, 1, 2>(launch, queue) : enqueue_rows<Format, 1, 1>(launch, queue);
  const auto code = enqueue(prepare<Format>, dim3(static_cast<unsigned>(launch.count)), kThreads, 0, queue, launch);
  if (code != cudaSuccess) return code;
  return pairs ? enqueue_rows<Format, kRows, 2>(launch, queue) : enqueue_rows<Format, kRows, 1>(launch, queue);
}

bool alike(const OneProduct& a, const OneProduct& b) { return a.weight.type == b.weight.type; }

}  // namespace

cudaError_t multiply(const ProductsLaunch& launch, const Queue& queue) {
  // Of different formats: one after the other, and the gate by itself.
  const bool separate = launch.has_gate && launch.product_count == 2 && !alike(launch.products[0], launch.products[1]);
  ProductsLaunch part = launch;
  part.has_gate = launch.has_gate && !separate;
  for (int first = 0, next = 0; first < launch.product_count; first = next) {
    for (next = first; next < launch.product_count && alike(launch.products[first], launch.products[next]); ++next)
      part.products[next - first] = launch.products[next];
    part.product_count = next - first;
    cudaError_t code = cudaErrorNotSupported;
    with_format(launch.products[first].weight.type,
                [&](auto format) { code = multiply_as<decltype(format)>(part, queue); });
    if (code != cudaSuccess) return code;
  }
  if (!separate) return cudaSuccess;
  return activate(launch.function, launch.products[0].out, launch.products[1].out,
                  launch.count * launch.products[0].weight.rows, launch.gated, queue.stream);
}

}  // namespace a2sf::cuda
