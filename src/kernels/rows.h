// Row operations that are the same on every host backend.
#pragma once

#include <cmath>
#include <cstring>

#include "kernels/backend.h"

namespace a2sf {

// One row of a weight matrix as floats.
inline void dequantise_row(const WeightView& weight, std::int64_t row, float* out) {
  if (weight.type == GGML_TYPE_F32) {
    std::memcpy(out, weight.row(row), weight.row_bytes());
  } else {
    ggml_get_type_traits(weight.type)->to_float(weight.row(row), out, weight.columns);
  }
}

// x / sqrt(mean(x^2) + epsilon) * weight
inline void rms_norm_row(const float* in, const float* weight, float epsilon, int columns, float* out) {
  double sum = 0;
  for (int i = 0; i < columns; ++i) sum += static_cast<double>(in[i]) * in[i];
  const auto scale = static_cast<float>(1 / std::sqrt(sum / columns + static_cast<double>(epsilon)));
  for (int i = 0; i < columns; ++i) out[i] = in[i] * scale * weight[i];
}

inline void gather_rows(Activations in, std::span<const int> rows, Activations out) {
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::memmove(out.row(static_cast<std::int64_t>(i)), in.row(rows[i]),
                 static_cast<std::size_t>(in.columns) * sizeof(float));
  }
}

}  // namespace a2sf
