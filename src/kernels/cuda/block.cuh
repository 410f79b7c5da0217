// Reductions over a thread block, in an order that depends on its size alone.
#pragma once

#include <cstdint>

namespace a2sf::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffU;

struct Sum {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Largest {
  __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};
struct Least {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a < b ? a : b;
  }
};

template <class T, class Operation>
__device__ T over_warp(T x, Operation operation) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) x = operation(x, __shfl_xor_sync(kAllLanes, x, distance));
  return x;
}

// Every thread of the block calls it, and all get the result. `scratch`: shared, one T of each warp.
template <class T, class Operation>
__device__ T over_block(T x, Operation operation, void* scratch) {
  T* const of_warps = static_cast<T*>(scratch);
  x = over_warp(x, operation);
  if (threadIdx.x % kWarp == 0) of_warps[threadIdx.x / kWarp] = x;
  __syncthreads();
  x = of_warps[0];
  for (unsigned warp = 1; warp < blockDim.x / kWarp; ++warp) x = operation(x, of_warps[warp]);
  __syncthreads();
  return x;
}

}  // namespace a2sf::cuda
