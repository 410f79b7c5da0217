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

// The inputs of many rows, or of a long one, for all blocks that multiply them. A row without a norm may be shared out
// over the blocks' y.
template <class Format>
__global__ void __launch_bounds__(kThreads) prepare(const __grid_constant__ ProductsLaunch launch) {
  __shared__ float scratch[kWarps];
  let_next_begin();
  wait_for_previous();
  const auto row = static_cast<std::int64_t>(blockIdx.x);
  const Quads in{launch.in + row * launch.columns, launch.columns};
  const RowNorm norm(launch.norm, in, scratch);
  RowOf<Format>(launch.prepared + row * prepared_bytes(launch.columns), launch.columns)
      .fill(in, norm, static_cast<int>(blockIdx.y) * kThreads + static_cast<int>(threadIdx.x),
            static_cast<int>(gridDim.y) * kThreads);
}

// A warp computes every `stride`-th output of `rows` rows, or two that a gate wants together; a lane sums every 32nd
// unit of columns. So the order of a sum depends on neither number. While a warp multiplies units, the next ones are on
// their way, also those of its next output.
template <class Format, int rows, int matrices>
class Outputs {
  using Unit = typename Format::Unit;
  static constexpr int kUnitBytes = Format::unit * Format::bytes / Format::block;
  // Units that are always on their way, as registers allow.
  static constexpr int kAhead = (rows == 1 ? std::clamp(80 / kUnitBytes, matrices, 4) : 2) / matrices;

 public:
  // Asks for the first units of the first output's weights.
  __device__ Outputs(const ProductsLaunch& launch, int first, int stride, int outputs)
      : launch_(launch),
        units_((launch.columns + Format::unit - 1) / Format::unit),
        next_(first),
        stride_(stride),
        outputs_(outputs) {
    if (next_ >= outputs_) return;
    asked_ = place_of(next_);
#pragma unroll
    for (int a = 0; a < kAhead; ++a) ask_for(a, a);
  }

  // The inputs of row r are row_of(r); those from first_row + r = count on are not there.
  template <class RowOf>
  __device__ void run(int first_row, RowOf row_of) {
    const int rounds = (units_ + kAhead * kWarp - 1) / (kAhead * kWarp);
    while (next_ < outputs_) {
      const Place place = asked_;
      float sums[matrices][rows] = {};
      for (int round = 0; round < rounds; ++round) {
        const bool is_last = round + 1 == rounds;
        if (is_last) {
          next_ += stride_;
          if (next_ < outputs_) asked_ = place_of(next_);
        }
#pragma unroll
        for (int a = 0; a < kAhead; ++a) {
          const int u = (round * kAhead + a) * kWarp + lane();
          if (u < units_) add_unit(a, u, row_of, sums);
          if (next_ < outputs_) ask_for(a, is_last ? a : (round + 1) * kAhead + a);
        }
      }
      write(place, first_row, sums);
    }
  }

 private:
  struct Place {
    int index, output;  // the product, and which of its outputs
  };

  __device__ static int lane() { return static_cast<int>(threadIdx.x) % kWarp; }
  __device__ Place place_of(int output) const {
    Place place{0, output};
    while (place.output >= launch_.products[place.index].weight.rows)
      place.output -= static_cast<int>(launch_.products[place.index++].weight.rows);
    return place;
  }

  // The lane's unit of 32 that are number `step` of the output's, to place `a`.
  __device__ void ask_for(int a, int step) {
    const int u = step * kWarp + lane();
    if (u >= units_) return;
#pragma unroll
    for (int m = 0; m < matrices; ++m) {
      const DeviceWeight& weight = launch_.products[asked_.index + m].weight;
      weights_[a][m] = Format::load(weight.data + asked_.output * weight.row_bytes, weight.offsets, u);
    }
  }
  template <class RowOf>
  __device__ void add_unit(int a, int u, RowOf row_of, float (&sums)[matrices][rows]) const {
#pragma unroll
    for (int r = 0; r < rows; ++r) {
      const typename Format::Input x = row_of(r).unit(u);
#pragma unroll
      for (int m = 0; m < matrices; ++m) sums[m][r] += dot<Format>(weights_[a][m], x);
    }
  }
  __device__ void write(const Place& place, int first_row, const float (&sums)[matrices][rows]) const {
    const Finish finish{launch_};
#pragma unroll
    for (int r = 0; r < rows; ++r) {
      float all[2] = {};
#pragma unroll
      for (int m = 0; m < matrices; ++m) all[m] = over_warp(sums[m][r], Sum());
      if (lane() != 0 || first_row + r >= launch_.count) continue;
      if (launch_.has_gate) {
        finish.write_gated(first_row + r, place.output, all[0], all[1]);
      } else {
        finish.write(place.index, first_row + r, place.output, all[0]);
      }
    }
  }

  const ProductsLaunch& launch_;
  int units_, next_, stride_, outputs_;
  Place asked_{};  // whose units were asked for last
  Unit weights_[kAhead][matrices];
};

enum class Inputs { own, prepared };

// Blocks stay until all outputs are there. One row's inputs each of them may prepare for itself, while the first
// weights are on their way.
template <class Format, Inputs inputs, int rows, int matrices>
__global__ void __launch_bounds__(kThreads, rows == 1 ? kBlocks : 2)
    multiply_rows(const __grid_constant__ ProductsLaunch launch) {
  extern __shared__ __align__(16) std::byte shared[];
  let_next_begin();
  int outputs = 0;
  for (int p = 0; p < launch.product_count; p += matrices) outputs += static_cast<int>(launch.products[p].weight.rows);
  const int first = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / kWarp;
  Outputs<Format, rows, matrices> all(launch, first, static_cast<int>(gridDim.x) * kWarps, outputs);
  if constexpr (inputs == Inputs::own) {
    OwnInputs<Format> own(launch, shared);
    wait_for_previous();
    const RowOf<Format> row = own.take();
    all.run(0, [&](int) { return row; });
  } else {
    wait_for_previous();
    const int first_row = static_cast<int>(blockIdx.y) * rows;
    all.run(first_row, [&](int r) {
      const auto row = static_cast<std::size_t>(min(first_row + r, launch.count - 1));
      return RowOf<Format>(launch.prepared + row * prepared_bytes(launch.columns), launch.columns);
    });
  }
}

template <class Format, Inputs inputs, int rows, int matrices>
cudaError_t enqueue_rows(const ProductsLaunch& launch, const Queue& queue) {
  std::int64_t outputs = 0;
  for (int p = 0; p < launch.product_count; p += matrices) outputs += launch.products[p].weight.rows;
  const int shared = inputs == Inputs::own ? OwnInputs<Format>::shared_bytes(launch) : 0;
  const std::int64_t needed = (outputs + kWarps - 1) / kWarps;
  const int most = queue.multiprocessors * std::clamp(kSharedBytes / std::max(shared, 1), 1, kBlocks);
  const std::int64_t rounds = (needed + most - 1) / most;  // as many for each
  const dim3 grid(static_cast<unsigned>((needed + rounds - 1) / rounds),
                  static_cast<unsigned>((launch.count + rows - 1) / rows));
  return enqueue(multiply_rows<Format, inputs, rows, matrices>, grid, kThreads, static_cast<std::size_t>(shared), queue,
                 launch);
}

template <class Format, Inputs inputs, int rows>
cudaError_t enqueue_pairs(const ProductsLaunch& launch, const Queue& queue) {
  const bool pairs = launch.has_gate && launch.product_count == 2;
  return pairs ? enqueue_rows<Format, inputs, rows, 2>(launch, queue)
               : enqueue_rows<Format, inputs, rows, 1>(launch, queue);
}

template <class Format>
cudaError_t enqueue_inputs(const ProductsLaunch& launch, const Queue& queue) {
  const int quads = (launch.columns + 3) / 4,
            parts = launch.norm.weight == nullptr ? (quads + kThreads - 1) / kThreads : 1;
  const dim3 grid(static_cast<unsigned>(launch.count), static_cast<unsigned>(parts));
  return enqueue(prepare<Format>, grid, kThreads, 0, queue, launch);
}

template <class Format>
cudaError_t multiply_as(const ProductsLaunch& launch, const Queue& queue) {
  // The inputs of a row that is long take longer than one more kernel.
  if (launch.count == 1 && launch.columns <= kMostOwnColumns)
    return enqueue_pairs<Format, Inputs::own, 1>(launch, queue);
  if (const auto code = enqueue_inputs<Format>(launch, queue); code != cudaSuccess) return code;
  return launch.count == 1 ? enqueue_pairs<Format, Inputs::prepared, 1>(launch, queue)
                           : enqueue_pairs<Format, Inputs::prepared, kRows>(launch, queue);
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
