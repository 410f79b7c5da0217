// Products of rows with weights, whatever their format.
#pragma once

#include "kernels/cuda/rows.h"

namespace a2sf::cuda {

// out[row][i] = weight[i] . in[row] (+ bias[i]) (+ out[row][i], if add). in: [count][columns], out: [count][rows].
struct ProductLaunch {
  DeviceWeight weight;
  const float* bias;  // or nullptr
  const float* in;
  float* out;
  int count;
  bool add;
};

// Enqueues. A row's result does not depend on `count`.
cudaError_t multiply(const ProductLaunch& launch, cudaStream_t stream);

}  // namespace a2sf::cuda
