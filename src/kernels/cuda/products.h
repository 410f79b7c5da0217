// Products of rows with weights, whatever their format.
#pragma once

#include "kernels/backend.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/tensors.h"

namespace a2sf::cuda {

// out[row][i] = weight[i] . in[row] (+ bias[i]) (+ out[row][i], if add). out: [count][weight.rows].
struct OneProduct {
  DeviceWeight weight;
  const float* bias;  // or nullptr
  float* out;
  bool add;
};

// Products of one input, in: [count][columns], after its norm. With a gate: gated = function(first product) (* second
// product, where there are two), and what the products' own places hold afterwards is undefined.
struct ProductsLaunch {
  OneProduct products[kMostProducts];
  int product_count;
  const float* in;
  DeviceNorm norm;  // no weight: none
  int columns, count;
  bool has_gate;
  Activation function;
  float* gated;
  std::byte* prepared;  // prepared_bytes(): the inputs as the formats want them, of several rows or a long one
};

// The most that a row takes.
A2SF_HOST_DEVICE inline std::size_t prepared_bytes(int columns) {
  return static_cast<std::size_t>((columns + 31) / 32) * 32 * 4;
}

// Enqueues. A row's result does not depend on `count`.
cudaError_t multiply(const ProductsLaunch& launch, const Queue& queue);

}  // namespace a2sf::cuda
