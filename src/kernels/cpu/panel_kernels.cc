// One source for every instruction set, as row_kernels.cc, but for the product of bytes. Highway insists on a portable
// baseline, which stays empty here.
#define HWY_DISABLED_TARGETS (~(HWY_SCALAR | HWY_EMU128 | HWY_AVX2 | HWY_AVX3))
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/panel_kernels.cc"
// Highway's own order of includes.
// clang-format off
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#include "kernels/cpu/panel_kernels.h"

#include <algorithm>
#include <cstring>
#include <utility>

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
namespace hn = hwy::HWY_NAMESPACE;

// A panel is one vector wide.
using F = hn::CappedTag<float, 16>;
using I32 = hn::RebindToSigned<F>;
using U8 = hn::Repartition<std::uint8_t, F>;
using U16 = hn::Repartition<std::uint16_t, F>;
using VF = hn::Vec<F>;
using VI32 = hn::Vec<I32>;
using VU8 = hn::Vec<U8>;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(F()));
// Rows of activations that share one pass over the weights: their sums and eight vectors of codes fill the registers.
constexpr int kRows = kLanes == 16 ? 8 : 4;

// Arrays of vectors stay in registers only where the loops over them are unrolled and the functions inlined.
#undef A2SF_UNROLL
#define A2SF_UNROLL HWY_UNROLL(8)

// ---- the dot product of quads: per lane, the sum over `count` vectors of four code x four input

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

// ---- codes and scales of a sub-block

template <int kShift>
HWY_INLINE VU8 shifted(VU8 v) {
  const auto words = hn::BitCast(U16(), v);
  if constexpr (kShift >= 0) return hn::BitCast(U8(), hn::ShiftLeft<kShift>(words));
  if constexpr (kShift < 0) return hn::BitCast(U8(), hn::ShiftRight<-kShift>(words));
}

// Adds the high bits of quads [0, kCount) above their four low ones.
template <int kBits, int kCount, std::size_t... kQuad>
HWY_INLINE void add_high_bits(const std::uint8_t* high, VU8 (&codes)[kCount], std::index_sequence<kQuad...>) {
  const VU8 word = hn::LoadU(U8(), high), mask = hn::Set(U8(), ((1 << kBits) - 1) << 4);
  ((codes[kQuad] = hn::Or(codes[kQuad], hn::And(shifted<4 - static_cast<int>(kQuad) * kBits>(word), mask))), ...);
}

template <ggml_type kType>
struct Sub {
  static constexpr PackedFormat format = *packed_format(kType);
  static constexpr int quads = format.sub / 4;
  static constexpr int bits = format.low_bits + format.high_bits;
  static constexpr bool is_signed = bits == 8 && kSignedCodes;
  // What the codes are too large by.
  static constexpr int offset = format.has_minimum || is_signed ? 0 : 1 << (bits - 1);
  static constexpr bool has_minimum = format.has_minimum || offset != 0;
  static constexpr int word_bytes = kLanes * 4;

  VU8 codes[quads];
  VF scale, minimum;

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
    scale = halves(record);
    if constexpr (format.has_minimum) minimum = halves(record + kLanes * 2);
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
  HWY_INLINE static VF halves(const std::uint8_t* from) {
    const hn::Rebind<hwy::float16_t, F> half;
    return hn::PromoteTo(F(), hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(from)));
  }
  template <class Integer>
  HWY_INLINE static VF integers(const std::uint8_t* from) {
    const hn::Rebind<Integer, F> narrow;
    return hn::ConvertTo(F(), hn::PromoteTo(I32(), hn::LoadU(narrow, reinterpret_cast<const Integer*>(from))));
  }
};

// ---- one panel times kCount rows: sums[row] += panel x row

// A single row is bound by memory: ask for the weights well ahead, across the page boundaries where the hardware stops.
template <std::size_t kBytes>
HWY_INLINE void prefetch(const void* record) {
  constexpr std::size_t kAhead = 4096, kLine = 64;
  for (std::size_t line = 0; line < kBytes; line += kLine)
    __builtin_prefetch(static_cast<const std::byte*>(record) + kAhead + line);
}

template <ggml_type kType, int kCount>
HWY_INLINE void multiply_integers(const PanelProduct& product, const std::byte* panel, int row, VF (&sums)[kCount]) {
  using Weights = Sub<kType>;
  constexpr PackedFormat format = Weights::format;
  const std::int64_t columns = product.input.columns, input_blocks = columns / kInputBlock;
  const std::int8_t* codes = product.input.codes + row * columns;
  const InputBlock* blocks = product.input.blocks + row * input_blocks;
  const auto* record = reinterpret_cast<const std::uint8_t*>(panel);
  for (std::int64_t column = 0; column < columns; column += format.block, record += format.record_bytes(kLanes)) {
    if constexpr (kCount == 1) prefetch<format.record_bytes(kLanes)>(record);
    for (int index = 0; index < format.block / format.sub; ++index) {
      Weights weights;
      weights.load(record, index);
      const std::int64_t at = column + index * format.sub;
      A2SF_UNROLL
      for (int i = 0; i < kCount; ++i) {
        const InputBlock& block = blocks[i * input_blocks + at / kInputBlock];
        const VF products = hn::ConvertTo(F(), weights.times(codes + i * columns + at));
        sums[i] = hn::MulAdd(hn::Mul(weights.scale, hn::Set(F(), block.scale)), products, sums[i]);
        if constexpr (Weights::has_minimum) {
          const float sum = format.sub == kInputBlock ? block.sum : block.half_sums[index % 2];
          sums[i] = hn::MulAdd(weights.minimum, hn::Set(F(), sum), sums[i]);
        }
      }
    }
  }
}

template <ggml_type kType>
HWY_INLINE VF load_floats(const std::byte* from) {
  if constexpr (kType == GGML_TYPE_F32) return hn::LoadU(F(), reinterpret_cast<const float*>(from));
  if constexpr (kType == GGML_TYPE_F16) {
    const hn::Rebind<hwy::float16_t, F> half;
    return hn::PromoteTo(F(), hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(from)));
  }
  if constexpr (kType == GGML_TYPE_BF16) {
    const hn::Rebind<std::uint16_t, F> half;
    const auto words = hn::PromoteTo(I32(), hn::LoadU(half, reinterpret_cast<const std::uint16_t*>(from)));
    return hn::BitCast(F(), hn::ShiftLeft<16>(words));
  }
}

// Two chains per row, so that the additions overlap.
template <ggml_type kType, int kCount>
HWY_INLINE void multiply_floats(const PanelProduct& product, const std::byte* panel, int row, VF (&sums)[kCount]) {
  constexpr std::size_t record = packed_format(kType)->record_bytes(kLanes);
  const std::int64_t columns = product.input.columns;
  const float* x = product.input.values + row * columns;
  VF odd[kCount];
  A2SF_UNROLL
  for (VF& sum : odd) sum = hn::Zero(F());
  std::int64_t column = 0;
  for (; column + 2 <= columns; column += 2, panel += 2 * record) {
    if constexpr (kCount == 1) prefetch<2 * record>(panel);
    const VF first = load_floats<kType>(panel), second = load_floats<kType>(panel + record);
    A2SF_UNROLL
    for (int i = 0; i < kCount; ++i) {
      sums[i] = hn::MulAdd(first, hn::Set(F(), x[i * columns + column]), sums[i]);
      odd[i] = hn::MulAdd(second, hn::Set(F(), x[i * columns + column + 1]), odd[i]);
    }
  }
  A2SF_UNROLL
  for (int i = 0; i < kCount; ++i) {
    if (column < columns)
      sums[i] = hn::MulAdd(load_floats<kType>(panel), hn::Set(F(), x[i * columns + column]), sums[i]);
    sums[i] = hn::Add(sums[i], odd[i]);
  }
}

// ---- ranges

HWY_INLINE void write(const PanelProduct& product, std::int64_t panel, int row, VF sum) {
  float values[kLanes];
  hn::StoreU(sum, F(), values);
  const std::int64_t first = panel * kLanes;
  const int count = static_cast<int>(std::min<std::int64_t>(kLanes, product.weight->rows - first));
  float* out = product.out.row(row) + first;
  for (int i = 0; i < count; ++i) {
    out[i] = (product.add ? out[i] : 0) + values[i] + (product.bias == nullptr ? 0 : product.bias[first + i]);
  }
}

template <ggml_type kType, int kCount>
void multiply_rows(const PanelProduct& product, std::int64_t panel, int row) {
  VF sums[kCount];
  A2SF_UNROLL
  for (VF& sum : sums) sum = hn::Zero(F());
  if constexpr (packed_format(kType)->is_float()) {
    multiply_floats<kType>(product, product.weight->panel(panel), row, sums);
  } else {
    multiply_integers<kType>(product, product.weight->panel(panel), row, sums);
  }
  A2SF_UNROLL
  for (int i = 0; i < kCount; ++i) write(product, panel, row + i, sums[i]);
}

template <ggml_type kType>
void multiply_range(const PanelProduct& product, const PanelRange& range) {
  for (std::int64_t panel = range.first_panel; panel < range.last_panel; ++panel) {
    int row = range.first_row;
    for (; row + kRows <= range.last_row; row += kRows) multiply_rows<kType, kRows>(product, panel, row);
    for (; row < range.last_row; ++row) multiply_rows<kType, 1>(product, panel, row);
  }
}

void multiply(const PanelProduct& product, const PanelRange& range) {
  switch (product.weight->format->type) {
    case GGML_TYPE_Q4_0:
      return multiply_range<GGML_TYPE_Q4_0>(product, range);
    case GGML_TYPE_Q4_1:
      return multiply_range<GGML_TYPE_Q4_1>(product, range);
    case GGML_TYPE_Q5_0:
      return multiply_range<GGML_TYPE_Q5_0>(product, range);
    case GGML_TYPE_Q8_0:
      return multiply_range<GGML_TYPE_Q8_0>(product, range);
    case GGML_TYPE_Q4_K:
      return multiply_range<GGML_TYPE_Q4_K>(product, range);
    case GGML_TYPE_Q6_K:
      return multiply_range<GGML_TYPE_Q6_K>(product, range);
    case GGML_TYPE_BF16:
      return multiply_range<GGML_TYPE_BF16>(product, range);
    case GGML_TYPE_F16:
      return multiply_range<GGML_TYPE_F16>(product, range);
    default:
      return multiply_range<GGML_TYPE_F32>(product, range);
  }
}

// ---- activations to integers

void quantise(const float* x, std::int64_t columns, std::int8_t* codes, InputBlock* blocks) {
  const F f;
  const hn::Rebind<std::int8_t, F> narrow;
  const hn::Rebind<std::int16_t, F> middle;
  for (std::int64_t column = 0; column < columns; column += kInputBlock, ++blocks) {
    VF largest = hn::Zero(f);
    for (int i = 0; i < kInputBlock; i += kLanes) largest = hn::Max(largest, hn::Abs(hn::LoadU(f, x + column + i)));
    const float scale = hn::GetLane(hn::MaxOfLanes(f, largest)) / 127;
    const VF inverse = hn::Set(f, scale > 1e-30F ? 1 / scale : 0);  // the inverse of a smaller one may overflow
    int sums[2];
    for (int half = 0; half < 2; ++half) {
      VI32 sum = hn::Zero(I32());
      for (int i = half * 16; i < half * 16 + 16; i += kLanes) {
        const VI32 code = hn::NearestInt(hn::Mul(hn::LoadU(f, x + column + i), inverse));
        sum = hn::Add(sum, code);
        hn::StoreU(hn::DemoteTo(narrow, hn::DemoteTo(middle, code)), narrow, codes + column + i);
      }
      sums[half] = hn::GetLane(hn::SumOfLanes(I32(), sum));
    }
    *blocks = {scale,
               scale * static_cast<float>(sums[0] + sums[1]),
               {scale * static_cast<float>(sums[0]), scale * static_cast<float>(sums[1])}};
  }
}

const PanelKernels kPanelKernels = {kLanes, quantise, multiply};

}  // namespace a2sf::cpu::HWY_NAMESPACE
HWY_POP_ATTRIBUTES
#endif

#if HWY_ONCE
namespace a2sf::cpu {

const PanelKernels& panel_kernels(const std::string& isa) {
  return isa == "avx512" ? N_AVX3::kPanelKernels : N_AVX2::kPanelKernels;
}

}  // namespace a2sf::cpu
#endif
