// What is asked of rows of logits, on the GPU.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/device.h"

namespace a2sf::cuda {

struct RowOfLogits {
  double log_sum;  // log(sum(exp(logits)))
  int is_finite;
};

// Enqueue. x = softcap * tanh(x / softcap) where that is above 0, then what each row is. logits: [rows][vocabulary];
// parts: parts_bytes() for each row.
std::size_t parts_bytes(int vocabulary);
cudaError_t finish_logits(float* logits, int rows, int vocabulary, float softcap, void* parts, RowOfLogits* of_rows,
                          const Queue& queue);

// One logit of one row.
struct Pick {
  int row, token;
};
cudaError_t pick(const float* logits, int vocabulary, const Pick* picks, int count, float* picked, cudaStream_t stream);

}  // namespace a2sf::cuda
