#include "kernels/cuda/logits.h"

#include <cfloat>

#include "kernels/cuda/block.cuh"

namespace a2sf::cuda {
namespace {

constexpr int kThreads = 512;

__global__ void __launch_bounds__(kThreads)
    finish_rows(float* logits, int vocabulary, float softcap, RowOfLogits* of_rows) {
  __shared__ double scratch[kThreads / kWarp];
  float* const row = logits + static_cast<std::int64_t>(blockIdx.x) * vocabulary;
  float largest = -FLT_MAX;
  bool finite = true;
  for (int i = static_cast<int>(threadIdx.x); i < vocabulary; i += kThreads) {
    finite &= isfinite(row[i]);
    if (softcap > 0) row[i] = softcap * tanhf(row[i] / softcap);
    largest = fmaxf(largest, row[i]);
  }
  largest = over_block(largest, Largest(), scratch);
  double sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < vocabulary; i += kThreads) sum += expf(row[i] - largest);
  sum = over_block(sum, Sum(), scratch);
  const bool all_finite = __syncthreads_and(finite) != 0;
  if (threadIdx.x == 0) of_rows[blockIdx.x] = {largest + log(sum), all_finite ? 1 : 0};
}

__global__ void pick_logits(const float* logits, int vocabulary, const Pick* picks, int count, float* picked) {
  const int i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (i < count) picked[i] = logits[static_cast<std::int64_t>(picks[i].row) * vocabulary + picks[i].token];
}

}  // namespace

cudaError_t finish_logits(float* logits, int rows, int vocabulary, float softcap, RowOfLogits* of_rows,
                          cudaStream_t stream) {
  finish_rows<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(logits, vocabulary, softcap, of_rows);
  return cudaGetLastError();
}

cudaError_t pick(const float* logits, int vocabulary, const Pick* picks, int count, float* picked,
                 cudaStream_t stream) {
  pick_logits<<<static_cast<unsigned>((count + kThreads - 1) / kThreads), kThreads, 0, stream>>>(logits, vocabulary,
                                                                                                 picks, count, picked);
  return cudaGetLastError();
}

}  // namespace a2sf::cuda
