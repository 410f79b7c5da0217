#include "kernels/cuda/rows.h"

#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/inputs.cuh"
#include "kernels/cuda/launch.cuh"

namespace a2sf::cuda {
namespace {

constexpr int kThreads = 256;

unsigned blocks_for(std::int64_t items) { return static_cast<unsigned>((items + kThreads - 1) / kThreads); }

template <class Format>
__global__ void look_up_rows(const LookUp look_up, float* out) {
  const std::int64_t id = look_up.ids[blockIdx.x] + std::int64_t{look_up.offset};
  const std::uint8_t* const row = look_up.table.data + id * look_up.table.row_bytes;
  float* const to = out + static_cast<std::int64_t>(blockIdx.x) * look_up.table.columns;
  for (int i = static_cast<int>(threadIdx.x); i < look_up.table.columns; i += kThreads) {
    const auto unit = Format::load(row, look_up.table.offsets, i / Format::unit);
    const float x = Format::value(unit, i % Format::unit) * look_up.scale;
    to[i] = look_up.add ? to[i] + x : x;
  }
}

template <bool adds>
__global__ void norm_of_rows(const float* in, const DeviceNorm norm, int columns, float* out) {
  __shared__ float scratch[kThreads / kWarp];
  const float* const x = in + static_cast<std::int64_t>(blockIdx.x) * columns;
  float* const to = out + static_cast<std::int64_t>(blockIdx.x) * columns;
  const Quads row{x, columns};
  const RowNorm norm_of_row(norm, row, scratch);
  for_loaded<kQuadsAtOnce>(row.count(), row, [&](int quad, const float4& in) {
    const float4 y = norm_of_row(in, quad);
    const float values[4] = {y.x, y.y, y.z, y.w};
    for (int e = 0; e < 4; ++e) {
      const int i = 4 * quad + e;
      if (i < columns) to[i] = adds ? to[i] + values[e] : values[e];
    }
  });
}

__global__ void activate_floats(Activation activation, const float* gate, const float* up, std::int64_t floats,
                                float* out) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= floats) return;
  const float x = activated(activation, gate[i]);
  out[i] = up == nullptr ? x : x * up[i];
}

__global__ void find_rotations_of(const DeviceRope rope, const std::int32_t* positions, float2* rotations) {
  const double position = positions[blockIdx.x];
  for (int i = static_cast<int>(threadIdx.x); i < rope.pairs; i += kThreads) {
    double sine, cosine;
    sincos(rope.angles[i] * position, &sine, &cosine);
    rotations[static_cast<std::int64_t>(blockIdx.x) * rope.pairs + i] = {static_cast<float>(cosine * rope.magnitude),
                                                                         static_cast<float>(sine * rope.magnitude)};
  }
}

__global__ void gather_rows(const float* in, const std::int32_t* rows, int columns, float* out) {
  let_next_begin();
  wait_for_previous();
  const float* const from = in + static_cast<std::int64_t>(rows[blockIdx.x]) * columns;
  float* const to = out + static_cast<std::int64_t>(blockIdx.x) * columns;
  for (int i = static_cast<int>(threadIdx.x); i < columns; i += kThreads) to[i] = from[i];
}

}  // namespace

cudaError_t look_up(const LookUp& args, int count, float* out, cudaStream_t stream) {
  const bool known = with_format(args.table.type, [&](auto format) {
    look_up_rows<decltype(format)><<<static_cast<unsigned>(count), kThreads, 0, stream>>>(args, out);
  });
  return known ? cudaGetLastError() : cudaErrorNotSupported;
}

cudaError_t norm_rows(const float* in, const DeviceNorm& norm, int columns, int count, float* out,
                      cudaStream_t stream) {
  norm_of_rows<false><<<static_cast<unsigned>(count), kThreads, 0, stream>>>(in, norm, columns, out);
  return cudaGetLastError();
}

cudaError_t add_rows(const float* in, const DeviceNorm& norm, int columns, int count, float* out, cudaStream_t stream) {
  norm_of_rows<true><<<static_cast<unsigned>(count), kThreads, 0, stream>>>(in, norm, columns, out);
  return cudaGetLastError();
}

cudaError_t activate(Activation activation, const float* gate, const float* up, std::int64_t floats, float* out,
                     cudaStream_t stream) {
  activate_floats<<<blocks_for(floats), kThreads, 0, stream>>>(activation, gate, up, floats, out);
  return cudaGetLastError();
}

cudaError_t find_rotations(const DeviceRope& rope, const std::int32_t* positions, int count, float2* rotations,
                           cudaStream_t stream) {
  if (rope.pairs == 0) return cudaSuccess;
  find_rotations_of<<<static_cast<unsigned>(count), kThreads, 0, stream>>>(rope, positions, rotations);
  return cudaGetLastError();
}

cudaError_t gather(const float* in, const std::int32_t* rows, int columns, int count, float* out, const Queue& queue) {
  return enqueue(gather_rows, dim3(static_cast<unsigned>(count)), kThreads, 0, queue, in, rows, columns, out);
}

}  // namespace a2sf::cuda
