#include "kernels/cpu/kernels.h"

#include <hwy/detect_compiler_arch.h>

namespace a2sf::cpu {

Kernels kernels_of(Isa isa) {
  switch (isa) {
#if HWY_ARCH_X86
    case Isa::avx512bf16:
      return {row_kernels<Isa::avx512>(), activation_kernel<Isa::avx512>(), &panel_kernels<Isa::avx512bf16>(),
              &rate_kernels<Isa::avx512bf16>()};
    case Isa::avx512:
      return {row_kernels<Isa::avx512>(), activation_kernel<Isa::avx512>(), &panel_kernels<Isa::avx512>(),
              &rate_kernels<Isa::avx512>()};
    case Isa::avx2:
      return {row_kernels<Isa::avx2>(), activation_kernel<Isa::avx2>(), &panel_kernels<Isa::avx2>(),
              &rate_kernels<Isa::avx2>()};
#endif
    default:
      return {row_kernels<Isa::portable>(), activation_kernel<Isa::portable>(), nullptr, nullptr};
  }
}

}  // namespace a2sf::cpu
