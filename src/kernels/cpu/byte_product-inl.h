// Dot products of bytes, compiled per instruction set: every 32-bit lane adds up quads of codes times quads of
// activations, over several vectors. They are intrinsics because Highway has no such product.
#if defined(A2SF_BYTE_PRODUCT_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef A2SF_BYTE_PRODUCT_INL_H
#undef A2SF_BYTE_PRODUCT_INL_H
#else
#define A2SF_BYTE_PRODUCT_INL_H
#endif

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "kernels/cpu/vectors-inl.h"

// Highway's AVX3 does not include VNNI; is_supported() asks for it.
#undef A2SF_TARGET
#if HWY_TARGET == HWY_AVX3
#define A2SF_TARGET HWY_TARGET_STR_AVX3 ",avx512vnni"
#else
#define A2SF_TARGET HWY_TARGET_STR
#endif

#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
HWY_PUSH_ATTRIBUTES(A2SF_TARGET)
namespace a2sf::cpu::HWY_NAMESPACE {

using U8 = hn::Repartition<std::uint8_t, F>;
using U16 = hn::Repartition<std::uint16_t, F>;
using VU8 = hn::Vec<U8>;

HWY_INLINE VI32 broadcast_quad(const std::int8_t* from) {
  std::int32_t quad;
  std::memcpy(&quad, from, sizeof(quad));
  return hn::Set(I32(), quad);
}

#if HWY_TARGET == HWY_AVX2
constexpr bool kSignedCodes = true;  // codes of 8 bits stay signed

// How many results of maddubs, sums of two products each, add up without overflow in 16 bits. Codes are below 2^bits.
constexpr int chain_length(int bits) { return bits <= 4 ? 8 : bits == 5 ? 4 : 2; }

template <int kBits, int kCount>
HWY_INLINE VI32 dot(const VU8 (&codes)[kCount], const std::int8_t* input) {
  constexpr int chain = std::min(chain_length(kBits), kCount);
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i sum;
  A2SF_UNROLL
  for (int first = 0; first < kCount; first += chain) {
    __m256i part = _mm256_maddubs_epi16(codes[first].raw, broadcast_quad(input + first * 4).raw);
    A2SF_UNROLL
    for (int i = first + 1; i < first + chain; ++i)
      part = _mm256_add_epi16(part, _mm256_maddubs_epi16(codes[i].raw, broadcast_quad(input + i * 4).raw));
    part = _mm256_madd_epi16(part, ones);
    sum = first == 0 ? part : _mm256_add_epi32(sum, part);
  }
  return VI32{sum};
}
// The codes of maddubs are unsigned: it gets their absolute values, and the activations take over their signs.
template <int kCount>
HWY_INLINE VI32 signed_dot(const VU8 (&codes)[kCount], const std::int8_t* input) {
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i sum = _mm256_setzero_si256();
  A2SF_UNROLL
  for (int i = 0; i < kCount; ++i) {
    const __m256i part = _mm256_maddubs_epi16(_mm256_abs_epi8(codes[i].raw),
                                              _mm256_sign_epi8(broadcast_quad(input + i * 4).raw, codes[i].raw));
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(part, ones));
  }
  return VI32{sum};
}
#else
constexpr bool kSignedCodes = false;  // codes of 8 bits are raised by 128, because those of dpbusd are unsigned

template <int kBits, int kCount>
HWY_INLINE VI32 dot(const VU8 (&codes)[kCount], const std::int8_t* input) {
  __m512i sum = _mm512_setzero_si512();
  A2SF_UNROLL
  for (int i = 0; i < kCount; ++i) sum = _mm512_dpbusd_epi32(sum, codes[i].raw, broadcast_quad(input + i * 4).raw);
  return VI32{sum};
}
#endif

}  // namespace a2sf::cpu::HWY_NAMESPACE
HWY_POP_ATTRIBUTES
#endif

#endif
