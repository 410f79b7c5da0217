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

__device__ inline void add_scaled(float4& to, float factor, const float4& x) {
  to = {fmaf(factor, x.x, to.x), fmaf(factor, x.y, to.y), fmaf(factor, x.z, to.z), fmaf(factor, x.w, to.w)};
}

// Calls use(i, load(i)) for every i below `count`, in some of `workers` threads, of which this is number `worker`. So
// many loads are on their way at once, and a block that has nothing else to do waits for them once.
template <int at_once, class Load, class Use>
__device__ void for_loaded(int count, int worker, int workers, Load load, Use use) {
  for (int first = worker; first < count; first += at_once * workers) {
    decltype(load(0)) loaded[at_once];
#pragma unroll
    for (int a = 0; a < at_once; ++a)
      if (first + a * workers < count) loaded[a] = load(first + a * workers);
#pragma unroll
    for (int a = 0; a < at_once; ++a)
      if (first + a * workers < count) use(first + a * workers, loaded[a]);
  }
}
// The same with all threads of the block.
template <int at_once, class Load, class Use>
__device__ void for_loaded(int count, Load load, Use use) {
  for_loaded<at_once>(count, static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x), load, use);
}

}  // namespace a2sf::cuda
