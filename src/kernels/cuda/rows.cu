#include "kernels/cuda/rows.h"

#include "kernels/backend.h"
#include "kernels/cuda/block.cuh"

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
    const float x = Format::value(row + i / Format::block * Format::bytes, i % Format::block) * look_up.scale;
    to[i] = look_up.add ? to[i] + x : x;
  }
}

__global__ void norm_of_rows(const float* in, const DeviceNorm norm, int columns, float* out) {
  __shared__ float scratch[kThreads / kWarp];
  const float* const x = in + static_cast<std::int64_t>(blockIdx.x) * columns;
  float* const to = out + static_cast<std::int64_t>(blockIdx.x) * columns;
  float sum = 0, squares = 0;
  for (int i = static_cast<int>(threadIdx.x); norm.subtracts_mean && i < columns; i += kThreads) sum += x[i];
  const float mean = norm.subtracts_mean ? over_block(sum, Sum(), scratch) / static_cast<float>(columns) : 0;
  for (int i = static_cast<int>(threadIdx.x); i < columns; i += kThreads) squares += (x[i] - mean) * (x[i] - mean);
  squares = over_block(squares, Sum(), scratch);
  const float scale = 1 / sqrtf(squares / static_cast<float>(columns) + norm.epsilon);
  for (int i = static_cast<int>(threadIdx.x); i < columns; i += kThreads)
    to[i] = (x[i] - mean) * scale * norm.weight[i] + (norm.bias == nullptr ? 0 : norm.bias[i]);
}

__global__ void add_to(const float* in, std::int64_t floats, float* out) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < floats) out[i] += in[i];
}

__device__ float activated(Activation activation, float x) {
  switch (activation) {
    case Activation::silu:
      return x / (1 + expf(-x));
    case Activation::gelu_tanh: {  // x/2 (1 + tanh u) = x / (1 + exp(-2u)) with u = sqrt(2/pi) (x + 0.044715 x^3)
      const float u = 0.7978845608028654F * (x + 0.044715F * x * x * x);
      return x / (1 + expf(-2 * u));
    }
    case Activation::gelu_erf:
      return x / 2 * (1 + erff(x * 0.7071067811865476F));
    case Activation::relu:
      break;
  }
  return fmaxf(x, 0);
}

__global__ void activate_floats(Activation activation, const float* gate, const float* up, std::int64_t floats,
                                float* out) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= floats) return;
  const float x = activated(activation, gate[i]);
  out[i] = up == nullptr ? x : x * up[i];
}

__global__ void gather_rows(const float* in, const std::int32_t* rows, int columns, float* out) {
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
  norm_of_rows<<<static_cast<unsigned>(count), kThreads, 0, stream>>>(in, norm, columns, out);
  return cudaGetLastError();
}

cudaError_t add_rows(const float* in, std::int64_t floats, float* out, cudaStream_t stream) {
  add_to<<<blocks_for(floats), kThreads, 0, stream>>>(in, floats, out);
  return cudaGetLastError();
}

cudaError_t activate(Activation activation, const float* gate, const float* up, std::int64_t floats, float* out,
                     cudaStream_t stream) {
  activate_floats<<<blocks_for(floats), kThreads, 0, stream>>>(activation, gate, up, floats, out);
  return cudaGetLastError();
}

cudaError_t gather(const float* in, const std::int32_t* rows, int columns, int count, float* out, cudaStream_t stream) {
  gather_rows<<<static_cast<unsigned>(count), kThreads, 0, stream>>>(in, rows, columns, out);
  return cudaGetLastError();
}

}  // namespace a2sf::cuda
