// Codes and scales of a packed sub-block as vectors, compiled per instruction set: the layout is in packed_weight.h.
#if defined(A2SF_PACKED_CODES_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef A2SF_PACKED_CODES_INL_H
#undef A2SF_PACKED_CODES_INL_H
#else
#define A2SF_PACKED_CODES_INL_H
#endif

#include <utility>

#include "kernels/cpu/byte_product-inl.h"
#include "kernels/cpu/packed_weight.h"

#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
HWY_PUSH_ATTRIBUTES(A2SF_TARGET)
namespace a2sf::cpu::HWY_NAMESPACE {

template <int kShift>
HWY_INLINE VU8 shifted(VU8 v) {
  const auto words = hn::BitCast(U16(), v);
  if constexpr (kShift >= 0) return hn::BitCast(U8(), hn::ShiftLeft<kShift>(words));
  if constexpr (kShift < 0) return hn::BitCast(U8(), hn::ShiftRight<-kShift>(words));
}

// Adds the high bits of kCount quads above their four low ones.
template <int kBits, int kCount, std::size_t... kQuad>
HWY_INLINE void add_high_bits(const std::uint8_t* high, VU8 (&codes)[kCount], std::index_sequence<kQuad...>) {
  const VU8 word = hn::LoadU(U8(), high), mask = hn::Set(U8(), ((1 << kBits) - 1) << 4);
  ((codes[kQuad] = hn::Or(codes[kQuad], hn::And(shifted<4 - static_cast<int>(kQuad) * kBits>(word), mask))), ...);
}

// One sub-block, the columns that share a scale, of all lanes of a panel.
template <ggml_type kType>
struct Sub {
  static constexpr PackedFormat format = *packed_format(kType);
  static constexpr int quads = format.sub / 4;
  static constexpr int bits = format.low_bits + format.high_bits;
  static constexpr bool is_signed = bits == 8 && kSignedCodes;
  // What must be subtracted from a code; it goes into the minimum.
  static constexpr int offset = format.has_minimum || is_signed ? 0 : 1 << (bits - 1);
  static constexpr bool has_minimum = format.has_minimum || offset != 0;
  static constexpr int word_bytes = kLanes * 4;

  VU8 codes[quads];
  V scale, minimum;

  // The sub-block `index` of a record.
  HWY_INLINE void load(const std::uint8_t* record, int index) {
    load_scales(record, index);
    const std::uint8_t* low = record + format.scale_bytes(kLanes) + index * quads * format.low_bits / 8 * word_bytes;
    if constexpr (format.low_bits == 8) {
      A2SF_UNROLL
      for (int i = 0; i < quads; ++i) {
        codes[i] = hn::LoadU(U8(), low + i * word_bytes);
        if constexpr (!is_signed) codes[i] = hn::Xor(codes[i], hn::Set(U8(), 128));
      }
    } else {
      const VU8 mask = hn::Set(U8(), 15);
      A2SF_UNROLL
      for (int i = 0; i < quads; i += 2) {
        const VU8 word = hn::LoadU(U8(), low + i / 2 * word_bytes);
        codes[i] = hn::And(word, mask);
        codes[i + 1] = hn::And(shifted<-4>(word), mask);
      }
    }
    if constexpr (format.high_bits > 0) {
      const std::uint8_t* high = record + format.scale_bytes(kLanes) + format.low_bytes(kLanes) + index * word_bytes;
      add_high_bits<format.high_bits>(high, codes, std::make_index_sequence<quads>());
    }
  }

  HWY_INLINE VI32 times(const std::int8_t* input) const {
    if constexpr (is_signed) return signed_dot(codes, input);
    if constexpr (!is_signed) return dot<bits>(codes, input);
  }

 private:
  HWY_INLINE void load_scales(const std::uint8_t* record, int index) {
    scale = load_halves(record);
    if constexpr (format.has_minimum) minimum = load_halves(record + kLanes * 2);
    if constexpr (format.has_steps) {
      constexpr int subs = format.block / format.sub;
      const std::uint8_t* steps = record + kLanes * (format.has_minimum ? 4 : 2) + index * kLanes;
      if constexpr (format.has_minimum) {
        scale = hn::Mul(scale, integers<std::uint8_t>(steps));
        minimum = hn::Neg(hn::Mul(minimum, integers<std::uint8_t>(steps + subs * kLanes)));
      } else {
        scale = hn::Mul(scale, integers<std::int8_t>(steps));
      }
    }
    if constexpr (offset != 0) minimum = hn::Mul(scale, hn::Set(F(), static_cast<float>(-offset)));
  }
  template <class Integer>
  HWY_INLINE static V integers(const std::uint8_t* from) {
    const hn::Rebind<Integer, F> narrow;
    return hn::ConvertTo(F(), hn::PromoteTo(I32(), hn::LoadU(narrow, reinterpret_cast<const Integer*>(from))));
  }
};

}  // namespace a2sf::cpu::HWY_NAMESPACE
HWY_POP_ATTRIBUTES
#endif

#endif
