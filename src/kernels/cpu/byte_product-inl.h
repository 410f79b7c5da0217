// Products of quads, compiled per instruction set: per lane, the sum over several vectors of four codes times four
// activations. Nothing else of the matrix kernels is more than Highway knows.
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

// Highway knows no byte products. Its AVX3 lacks VNNI, which supported_isas() asks for.
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
constexpr bool kSignedCodes = true;  // of 8 bits

// Codes below 2^bits: so many products of two quads add up within 16 bits.
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
// The sign of a code goes to its input.
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
constexpr bool kSignedCodes = false;  // they are shifted up by 128

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
