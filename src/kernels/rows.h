// Row operations that are the same on every host backend.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/host/activations.h"

namespace a2sf {

// One row of a weight matrix as floats.
inline void dequantise_row(const WeightView& weight, std::int64_t row, float* out) {
  if (weight.type == GGML_TYPE_F32) {
    std::memcpy(out, weight.row(row), weight.row_bytes());
  } else {
    ggml_get_type_traits(weight.type)->to_float(weight.row(row), out, weight.columns);
  }
}

inline const float* floats(const WeightView& vector) { return reinterpret_cast<const float*>(vector.data); }

inline void norm_row(const Norm& norm, const float* in, int columns, float* out) {
  double mean = 0, squares = 0;
  if (norm.kind == NormKind::layer) {
    for (int i = 0; i < columns; ++i) mean += static_cast<double>(in[i]);
    mean /= columns;
  }
  for (int i = 0; i < columns; ++i) {
    const double x = static_cast<double>(in[i]) - mean;
    squares += x * x;
  }
  const auto scale = static_cast<float>(1 / std::sqrt(squares / columns + static_cast<double>(norm.epsilon)));
  const auto shift = static_cast<float>(mean);
  const float* weight = floats(norm.weight);
  for (int i = 0; i < columns; ++i) out[i] = (in[i] - shift) * scale * weight[i];
  if (!norm.bias) return;
  const float* bias = floats(norm.bias);
  for (int i = 0; i < columns; ++i) out[i] += bias[i];
}

inline void embed_row(const WeightView& table, std::int64_t token, float scale, float* out) {
  dequantise_row(table, token, out);
  if (scale == 1) return;
  for (std::int64_t i = 0; i < table.columns; ++i) out[i] *= scale;
}

// Adds the embedding of its position to every row of a span. `embedding` has room for one.
inline void add_positions_of(const Span& span, const WeightView& table, int offset, std::span<float> embedding,
                             HostRows out) {
  for (int row = 0; row < span.rows; ++row) {
    dequantise_row(table, span.first_position + row + offset, embedding.data());
    float* x = out.row(span.first_row + row);
    for (std::int64_t i = 0; i < table.columns; ++i) x[i] += embedding[static_cast<std::size_t>(i)];
  }
}

template <class Real>
Real activated(Activation activation, Real x) {
  switch (activation) {
    case Activation::silu:
      return x / (1 + std::exp(-x));
    case Activation::gelu_tanh: {  // x/2 (1 + tanh u) = x / (1 + exp(-2u)) with u = sqrt(2/pi) (x + 0.044715 x^3)
      const Real u = static_cast<Real>(0.7978845608028654) * (x + static_cast<Real>(0.044715) * x * x * x);
      return x / (1 + std::exp(-2 * u));
    }
    case Activation::gelu_erf:
      return x / 2 * (1 + std::erf(x * static_cast<Real>(0.7071067811865476)));
    case Activation::relu:
      break;
  }
  return x > 0 ? x : 0;
}

// out = activation(gate), times `up` unless that is nullptr.
template <class Real>
void activate_row(Activation activation, const float* gate, const float* up, int columns, float* out) {
  for (int i = 0; i < columns; ++i) {
    const Real x = activated<Real>(activation, gate[i]);
    out[i] = static_cast<float>(up == nullptr ? x : x * up[i]);
  }
}

inline void softcap_row(float* logits, float most, int columns) {
  for (int i = 0; i < columns; ++i) logits[i] = most * std::tanh(logits[i] / most);
}

// The rows whose logits the step wants.
inline void gather_rows(const Step& step, HostRows in, HostRows out) {
  for (std::size_t i = 0; i < step.wanted.size(); ++i)
    std::copy_n(in.row(step.wanted[i].row), in.columns, out.row(static_cast<std::int64_t>(i)));
}

inline void add_rows(HostRows in, int rows, HostRows out) {
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(rows) * in.columns; ++i) out.data[i] += in.data[i];
}

}  // namespace a2sf
