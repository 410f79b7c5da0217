// What all vector kernels share, compiled per instruction set: the type of vectors, loads of f16, prefetching.
#if defined(A2SF_VECTORS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef A2SF_VECTORS_INL_H
#undef A2SF_VECTORS_INL_H
#else
#define A2SF_VECTORS_INL_H
#endif

#include <hwy/highway.h>

#include <cstddef>

#include "kernels/cpu/isa.h"

// Arrays of vectors stay in registers only where the loops over them are unrolled and the functions inlined.
#undef A2SF_UNROLL
#define A2SF_UNROLL HWY_UNROLL(8)

HWY_BEFORE_NAMESPACE();
namespace a2sf::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// At most 16 lanes, so that a tile of slots is a whole number of vectors and a panel of weights is one.
using F = hn::CappedTag<float, 16>;
using V = hn::Vec<F>;
using I32 = hn::RebindToSigned<F>;
using VI32 = hn::Vec<I32>;
inline constexpr int kLanes = static_cast<int>(hn::MaxLanes(F()));

// The instruction set that is being compiled.
inline constexpr Isa kIsa = HWY_TARGET == HWY_AVX3 ? Isa::avx512 : HWY_TARGET == HWY_AVX2 ? Isa::avx2 : Isa::portable;

HWY_INLINE V load_halves(const void* from) {
  const hn::Rebind<hwy::float16_t, F> half;
  return hn::PromoteTo(F(), hn::LoadU(half, static_cast<const hwy::float16_t*>(from)));
}

// Prefetches every cache line of kBytes.
template <std::size_t kBytes>
HWY_INLINE void prefetch(const void* data) {
  constexpr std::size_t kLine = 64;
  for (std::size_t line = 0; line < kBytes; line += kLine)
    __builtin_prefetch(static_cast<const std::byte*>(data) + line);
}

// In bytes, for data that is streamed from memory. It is a page, because the hardware prefetcher does not go beyond the
// page that is being read.
inline constexpr std::ptrdiff_t kPrefetchDistance = 4096;

}  // namespace a2sf::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
