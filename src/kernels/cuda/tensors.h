// What kernels know of a model's tensors: plain data, the tensors in the GPU's memory.
#pragma once

#include "kernels/cuda/formats.h"

namespace a2sf::cuda {

// Rows as in formats.h.
struct DeviceWeight {
  const std::uint8_t* data;
  ggml_type type;
  std::int64_t rows, columns;
  std::int64_t row_bytes;
  Offsets offsets;
};

// Norm; no weight: none.
struct DeviceNorm {
  const float *weight, *bias;
  float epsilon;
  bool subtracts_mean;
};

// RopeTable.
struct DeviceRope {
  const double* angles;  // radians per position
  int pairs;
  float magnitude;
  bool interleaved;
};

}  // namespace a2sf::cuda
