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
constexpr int kMostOwnColumns = 8192;    // of a row whose inputs every block prepares for itself
constexpr int kMostShared = 96 << 10;    // bytes that every GPU gives a block
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
// So the order of a sum depends on neither number.
template <class Format, int rows, int matrices>
class Outputs {
  using Unit = typename Format::Unit;
  static constexpr int kAhead = rows == 1 ? 4 / matrices : 1;  // units that a thread has asked for before it uses one

 public:
  __device__ explicit Outputs(const ProductsLaunch& launch)
      : launch_(launch), units_((launch.columns + Format::unit - 1) / Format::unit) {}

  // Asks for the first units of an output's weights.
  __device__ void begin(int output) {
    index_ = 0;
    output_ = output;
    while (output_ >= launch_.products[index_].weight.rows)
      output_ -= static_cast<int>(launch_.products[index_++].weight.rows);
    ask_for(lane());
  }

  // The inputs of row r are row_of(r); those from first_row + r = count on are not there.
  template <class RowOf>
  __device__ void finish(int first_row, RowOf row_of) {
    float sums[matrices][rows] = {};
    for (int first = lane(); first < units_; first += kAhead * kWarp) {
      if (first != lane()) ask_for(first);
#pragma unroll
      for (int a = 0; a < kAhead; ++a) {
        const int u = first + a * kWarp;
        if (u >= units_) break;
#pragma unroll
        for (int r = 0; r < rows; ++r) {
          const typename Format::Input x = row_of(r).unit(u);
#pragma unroll
          for (int m = 0; m < matrices; ++m) sums[m][r] += dot<Format>(weights_[a][m], x);
        }
      }
    }
    const Finish finish{launch_};
#pragma unroll
    for (int r = 0; r < rows; ++r) {
      float all[2] = {};
#pragma unroll
      for (int m = 0; m < matrices; ++m) all[m] = over_warp(sums[m][r], Sum());
      if (lane() != 0 || first_row + r >= launch_.count) continue;
      if (launch_.has_gate) {
        finish.write_gated(first_row + r, output_, all[0], all[1]);
      } else {
        finish.write(index_, first_row + r, output_, all[0]);
      }
    }
  }

 private:
  __device__ static int lane() { return static_cast<int>(threadIdx.x) % kWarp; }
  __device__ void ask_for(int first) {
#pragma unroll
    for (int m = 0; m < matrices; ++m) {
      const DeviceWeight& weight = launch_.products[index_ + m].weight;
      const std::uint8_t* const row = weight.data + output_ * weight.row_bytes;
#pragma unroll
      for (int a = 0; a < kAhead; ++a)
        weights_[a][m] = Format::load(row, weight.offsets, min(first + a * kWarp, units_ - 1));
    }
  }

  const ProductsLaunch& launch_;
  int units_;
  int index_ = 0, output_ = 0;  // the product, and which of its outputs
  Unit weights_[kAhead][matrices];
};

// The inputs of the only row.
template <class Format>
__device__ void take_inputs(const ProductsLaunch& launch, std::byte* shared) {
  __shared__ float reduction[kWarps];
  const RowOf<Format> row(shared, launch.columns);
  if (launch.prepared == nullptr) {
    row.fill(launch.in, RowNorm(launch.norm, launch.in, launch.columns, reduction));
  } else {
    const auto* const from = reinterpret_cast<const uint4*>(launch.prepared);
#pragma unroll 4
    for (int i = static_cast<int>(threadIdx.x); i < row.quads(); i += kThreads)
      reinterpret_cast<uint4*>(shared)[i] = from[i];
  }
}

// Blocks stay until all outputs are there: inputs of one row are prepared once for each of them, while the first
// weights are on their way.
template <class Format, int rows, int matrices>
__global__ void __launch_bounds__(kThreads, rows == 1 ? kBlocks : 2)
    multiply_rows(const __grid_constant__ ProductsLaunch launch) {
  extern __shared__ __align__(16) std::byte shared[];
  let_next_begin();
  int outputs = 0;
  for (int p = 0; p < launch.product_count; p += matrices) outputs += static_cast<int>(launch.products[p].weight.rows);
  const int warps = static_cast<int>(gridDim.x) * kWarps;
  int output = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / kWarp;
  Outputs<Format, rows, matrices> all(launch);
  if (output < outputs) all.begin(output);
  wait_for_previous();
  const int first_row = static_cast<int>(blockIdx.y) * rows;
  if constexpr (rows == 1) {
    take_inputs<Format>(launch, shared);
    __syncthreads();
  }
  const auto row_of = [&](int r) {
    if constexpr (rows == 1) return RowOf<Format>(shared, launch.columns);
    const auto row = static_cast<std::size_t>(min(first_row + r, launch.count - 1));
    return RowOf<Format>(launch.prepared + row * prepared_bytes(launch.columns), launch.columns);
  };
  while (output < outputs) {
    all.finish(first_row, row_of);
    output += warps;
    if (output < outputs) all.begin(output);
  }
}

template <class Format>
int shared_bytes(int columns) {
  const int units = (columns + Format::unit - 1) / Format::unit;
  return (units * RowOf<Format>::unit_bytes + 15) / 16 * 16;
}

template <class Format, int rows, int matrices>
cudaError_t enqueue_rows(const ProductsLaunch& launch, const Queue& queue) {
  std::int64_t outputs = 0;
  for (int p = 0; p < launch.product_count; p += matrices) outputs += launch.products[p].weight.rows;
  const int shared = rows == 1 ? shared_bytes<Format>(launch.columns) : 0;
  const std::int64_t needed = (outputs + kWarps - 1) / kWarps;
  const int most = queue.multiprocessors * std::clamp(kSharedBytes / std::max(shared, 1), 1, kBlocks);
  const std::int64_t rounds = (needed + most - 1) / most;  // as many for each
  const dim3 grid(static_cast<unsigned>((needed + rounds - 1) / rounds),
                  static_cast<unsigned>((launch.count + rows - 1) / rows));
  return enqueue(multiply_rows<Format, rows, matrices>, grid, kThreads, static_cast<std::size_t>(shared), queue,
                 launch);
}

template <class Format>
cudaError_t multiply_as(ProductsLaunch launch, const Queue& queue) {
  const bool pairs = launch.has_gate && launch.product_count == 2;
  // The inputs of a row that is long take longer than one more kernel.
  const bool is_one = launch.count == 1 && shared_bytes<Format>(launch.columns) <= kMostShared;
  if (is_one && launch.columns <= kMostOwnColumns) {
    launch.prepared = nullptr;
  } else {
    const auto code = enqueue(prepare<Format>, dim3(static_cast<unsigned>(launch.count)), kThreads, 0, queue, launch);
    if (code != cudaSuccess) return code;
  }
  if (is_one) return pairs ? enqueue_rows<Format, 1, 2>(launch, queue) : enqueue_rows<Format, 1, 1>(launch, queue);
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
