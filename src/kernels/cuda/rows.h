// Operations on rows of activations that are no products: embeddings, norms, sums, activations.
#pragma once

#include "kernels/cuda/device.h"
#include "kernels/cuda/tensors.h"

namespace a2sf {
enum class Activation;
}

namespace a2sf::cuda {

// All of them enqueue. Rows are dense: [count][columns].

// out[i] (+)= scale * the table's row number ids[i] + offset.
struct LookUp {
  DeviceWeight table;
  const std::int32_t* ids;
  int offset;
  float scale;
  bool add;
};
cudaError_t look_up(const LookUp& look_up, int count, float* out, cudaStream_t stream);
cudaError_t norm_rows(const float* in, const DeviceNorm& norm, int columns, int count, float* out, cudaStream_t stream);
// out += in, or its norm where there is one.
cudaError_t add_rows(const float* in, const DeviceNorm& norm, int columns, int count, float* out, cudaStream_t stream);
// out = activation(gate), times `up` unless that is nullptr.
cudaError_t activate(Activation activation, const float* gate, const float* up, std::int64_t floats, float* out,
                     cudaStream_t stream);
// rotations[row][pair]: cosine and sine of the angle at the row's position, times the magnitude.
cudaError_t find_rotations(const DeviceRope& rope, const std::int32_t* positions, int count, float2* rotations,
                           cudaStream_t stream);
// out[i] = in[rows[i]]
cudaError_t gather(const float* in, const std::int32_t* rows, int columns, int count, float* out, const Queue& queue);

}  // namespace a2sf::cuda
