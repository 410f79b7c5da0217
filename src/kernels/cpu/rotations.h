// The rotations that one RoPE table gives the rows of a step: computed once, used by all layers that have this table.
#pragma once

#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/row_kernels.h"

namespace a2sf::cpu {

class Rotations {
 public:
  void prepare(const Step& step, const RopeTable& rope);  // may throw std::bad_alloc
  // Rotates a head of the step's row in place.
  void apply(const RowKernels& kernels, int row, float* head) const {
    const std::ptrdiff_t first = static_cast<std::ptrdiff_t>(row) * pairs_;
    kernels.rotate(head, cosine_.data() + first, sine_.data() + first, pairs_, interleaved_);
  }

 private:
  std::vector<float> cosine_, sine_;  // [row][pair]
  int pairs_ = 0;
  bool interleaved_ = true;
};

}  // namespace a2sf::cpu
