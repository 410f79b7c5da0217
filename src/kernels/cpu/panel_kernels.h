// Products of packed weights and rows of activations, one table per instruction set.
#pragma once

#include <cstdint>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/packed_weight.h"
#include "kernels/host/activations.h"

namespace a2sf::cpu {

inline constexpr int kInputBlock = 32;

// kInputBlock activations x of a row as codes c: x = scale * c, |c| <= 127. Weights with a minimum need the sums of
// scale * c: over the block, and over each half.
struct InputBlock {
  float scale, sum, half_sums[2];
};

// Rows of activations in all the forms that weights are multiplied with. A view.
struct PanelInput {
  const float* values;         // [row][columns]
  const std::int8_t* codes;    // [row][columns]; for weights that are integers
  const InputBlock* blocks;    // [row][columns / kInputBlock]; of the codes
  const ggml_bf16_t* rounded;  // [row][columns]; for bf16 weights, if round_for_bf16
  std::int64_t columns;
};

// out = weight x input (+ bias) (+ out, if add), for panels [first_panel, last_panel) and rows [first_row, last_row).
struct PanelProduct {
  const PackedWeight* weight;
  PanelInput input;
  const float* bias;  // or nullptr
  HostRows out;
  bool add;
};
struct PanelRange {
  std::int64_t first_panel, last_panel;
  int first_row, last_row;
};

// An output's bytes depend on its weights and its row of activations alone: columns are added in order, whatever the
// range.
struct PanelKernels {
  int lanes;
  bool round_for_bf16;  // bf16 weights are multiplied with activations rounded to bf16, otherwise with f32
  void (*quantise)(const float* x, std::int64_t columns, std::int8_t* codes, InputBlock* blocks);
  void (*multiply)(const PanelProduct& product, const PanelRange& range);
};

// Defined for avx512bf16, avx512 and avx2; kernels_of() picks.
template <Isa isa>
const PanelKernels& panel_kernels();

}  // namespace a2sf::cpu
