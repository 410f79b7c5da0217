// Products of packed weights and rows of activations, one table per instruction set.
#pragma once

#include <cstdint>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/packed_weight.h"
#include "kernels/host/activations.h"

namespace a2sf::cpu {

inline constexpr int kInputBlock = 32;

// 32 activations x of a row as codes c: x = scale * c, |c| <= 127. The sums are of scale * c: over all 32, and over
// each half, for weights whose codes are not centred.
struct InputBlock {
  float scale, sum, half_sums[2];
};

// Rows of activations, as they are and as the weights of a type take them. A view.
struct PanelInput {
  const float* values;         // [row][columns]
  const std::int8_t* codes;    // [row][columns]; for weights that are integers
  const InputBlock* blocks;    // [row][columns / 32]; likewise
  const ggml_bf16_t* rounded;  // [row][columns]; for bf16 weights where the kernels want it
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
  bool round_for_bf16;  // bf16 weights want activations in bf16, else as they are
  void (*quantise)(const float* x, std::int64_t columns, std::int8_t* codes, InputBlock* blocks);
  void (*multiply)(const PanelProduct& product, const PanelRange& range);
};

// Of avx512bf16, avx512 and avx2: kernels.h has them all.
template <Isa isa>
const PanelKernels& panel_kernels();

}  // namespace a2sf::cpu
