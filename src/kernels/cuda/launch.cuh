// Kernels that get ready while the one before them ends (programmatic dependent launch, Hopper).
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/device.h"

namespace a2sf::cuda {

// A kernel of enqueue() calls it before it writes anything, and before it reads what kernels close before it write. The
// step's rotations are older than that, and before its first row a layer's cache is as the last step left it.
__device__ inline void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
#endif
}
// From here on the next kernel may begin, as far as there is room.
__device__ inline void let_next_begin() {
#if __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}

// A kernel that waits for the previous one itself.
template <class... Parameters, class... Arguments>
cudaError_t enqueue(void (*kernel)(Parameters...), dim3 grid, int threads, std::size_t shared, const Queue& queue,
                    const Arguments&... arguments) {
  if (const auto code =
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
      code != cudaSuccess)
    return code;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared;
  config.stream = queue.stream;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &attribute;
  // Of code that is not for Hopper the functions above are empty.
  static const bool waits_itself = [&] {
    cudaFuncAttributes of_kernel{};
    return cudaFuncGetAttributes(&of_kernel, kernel) == cudaSuccess && of_kernel.ptxVersion >= 90;
  }();
  config.numAttrs = queue.overlaps && waits_itself ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
}

}  // namespace a2sf::cuda
