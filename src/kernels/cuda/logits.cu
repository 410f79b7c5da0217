#include "kernels/cuda/logits.h"

#include <cfloat>

#include "kernels/cuda/block.cuh"
#include "kernels/cuda/launch.cuh"

namespace a2sf::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kPart = 4096;  // logits of a row that a block goes through

// Of a part of a row.
struct Part {
  float largest;
  int is_finite;
  double sum;  // of exp(logit - largest)
};

// The order of a sum depends on the vocabulary alone.
__global__ void __launch_bounds__(kThreads) find_parts(float* logits, int vocabulary, float softcap, Part* parts) {
  __shared__ double scratch[kThreads / kWarp];
  let_next_begin();
  wait_for_previous();
  float* const row = logits + static_cast<std::int64_t>(blockIdx.y) * vocabulary;
  const int first = static_cast<int>(blockIdx.x) * kPart, end = min(first + kPart, vocabulary);
  float largest = -FLT_MAX;
  bool finite = true;
  for (int i = first + static_cast<int>(threadIdx.x); i < end; i += kThreads) {
    finite &= isfinite(row[i]);
    if (softcap > 0) row[i] = softcap * tanhf(row[i] / softcap);
    largest = fmaxf(largest, row[i]);
  }
  largest = over_block(largest, Largest(), scratch);
  double sum = 0;
  for (int i = first + static_cast<int>(threadIdx.x); i < end; i += kThreads) sum += expf(row[i] - largest);
  sum = over_block(sum, Sum(), scratch);
  const bool all_finite = __syncthreads_and(finite) != 0;
  if (threadIdx.x == 0) parts[blockIdx.y * gridDim.x + blockIdx.x] = {largest, all_finite ? 1 : 0, sum};
}

__global__ void __launch_bounds__(kWarp) sum_parts(const Part* parts, int count, RowOfLogits* of_rows) {
  let_next_begin();
  wait_for_previous();
  parts += static_cast<std::int64_t>(blockIdx.x) * count;
  float largest = -FLT_MAX;
  int finite = 1;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kWarp) {
    largest = fmaxf(largest, parts[i].largest);
    finite &= parts[i].is_finite;
  }
  largest = over_warp(largest, Largest());
  double sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kWarp)
    sum += parts[i].sum * exp(static_cast<double>(parts[i].largest - largest));
  sum = over_warp(sum, Sum());
  finite = __all_sync(kAllLanes, finite);
  if (threadIdx.x == 0) of_rows[blockIdx.x] = {largest + log(sum), finite};
}

int parts_of(int vocabulary) { return (vocabulary + kPart - 1) / kPart; }

__global__ void pick_logits(const float* logits, int vocabulary, const Pick* picks, int count, float* picked) {
  const int i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (i < count) picked[i] = logits[static_cast<std::int64_t>(picks[i].row) * vocabulary + picks[i].token];
}

}  // namespace

std::size_t parts_bytes(int vocabulary) { return static_cast<std::size_t>(parts_of(vocabulary)) * sizeof(Part); }

cudaError_t finish_logits(float* logits, int rows, int vocabulary, float softcap, void* parts, RowOfLogits* of_rows,
                          const Queue& queue) {
  const int count = parts_of(vocabulary);
  auto* const of_parts = static_cast<Part*>(parts);
  const dim3 blocks(static_cast<unsigned>(count), static_cast<unsigned>(rows));
  if (const auto code = enqueue(find_parts, blocks, kThreads, 0, queue, logits, vocabulary, softcap, of_parts);
      code != cudaSuccess)
    return code;
  return enqueue(sum_parts, dim3(static_cast<unsigned>(rows)), kWarp, 0, queue, of_parts, count, of_rows);
}

cudaError_t pick(const float* logits, int vocabulary, const Pick* picks, int count, float* picked,
                 cudaStream_t stream) {
  pick_logits<<<static_cast<unsigned>((count + kThreads - 1) / kThreads), kThreads, 0, stream>>>(logits, vocabulary,
                                                                                                 picks, count, picked);
  return cudaGetLastError();
}

}  // namespace a2sf::cuda
