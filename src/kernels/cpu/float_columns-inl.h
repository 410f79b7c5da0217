// Floating-point weights of a panel, two vectors at a time, and their products with activations; compiled per
// instruction set.
#if defined(A2SF_FLOAT_COLUMNS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef A2SF_FLOAT_COLUMNS_INL_H
#undef A2SF_FLOAT_COLUMNS_INL_H
#else
#define A2SF_FLOAT_COLUMNS_INL_H
#endif

#include <cstdint>
#include <cstring>

#include "kernels/cpu/packed_weight.h"
#include "kernels/cpu/panel_kernels.h"
#include "kernels/cpu/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace a2sf::cpu::HWY_NAMESPACE {

// Two columns: of f32 and f16 they follow each other, of bf16 they share the 32-bit lanes of one vector.
template <ggml_type kType>
struct TwoColumns {
  static constexpr int columns = 2;
  static constexpr std::size_t bytes = kLanes * columns * packed_format(kType)->low_bits / 8;
  V first, second;

  static const float* activations(const PanelInput& input) { return input.values; }
  HWY_INLINE explicit TwoColumns(const std::byte* panel) {
    if constexpr (kType == GGML_TYPE_BF16) {
      const VI32 words = hn::LoadU(I32(), reinterpret_cast<const std::int32_t*>(panel));
      first = hn::BitCast(F(), hn::ShiftLeft<16>(words));
      second = hn::BitCast(F(), hn::And(words, hn::Set(I32(), static_cast<std::int32_t>(0xffff0000))));
    } else {
      first = load(panel);
      second = load(panel + bytes / 2);
    }
  }
  HWY_INLINE void add_products(const float* x, V& even, V& odd) const {
    even = hn::MulAdd(first, hn::Set(F(), x[0]), even);
    odd = hn::MulAdd(second, hn::Set(F(), x[1]), odd);
  }
  // The last of an odd number of columns, which bf16 never has.
  static HWY_INLINE void add_half(const std::byte* panel, const float* x, V& even) {
    even = hn::MulAdd(load(panel), hn::Set(F(), x[0]), even);
  }

 private:
  static HWY_INLINE V load(const std::byte* from) {
    if constexpr (kType == GGML_TYPE_F32) return hn::LoadU(F(), reinterpret_cast<const float*>(from));
    if constexpr (kType != GGML_TYPE_F32) return load_halves(from);
  }
};

#if HWY_TARGET == HWY_AVX3
// sum + a x b, added up over the two bf16 of each lane. In assembly, because this target is compiled without the
// instruction: machines that lack it share the other kernels.
HWY_INLINE V multiply_add_bf16(VI32 a, VI32 b, V sum) {
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum.raw) : "v"(a.raw), "v"(b.raw));
  return sum;
}

// Four columns of bf16, times activations rounded to bf16.
struct FourRounded {
  static constexpr int columns = 4;
  static constexpr std::size_t bytes = kLanes * columns * sizeof(ggml_bf16_t);
  VI32 first, second;

  static const ggml_bf16_t* activations(const PanelInput& input) { return input.rounded; }
  HWY_INLINE explicit FourRounded(const std::byte* panel) : first(load(panel)), second(load(panel + bytes / 2)) {}
  HWY_INLINE void add_products(const ggml_bf16_t* x, V& even, V& odd) const {
    add(first, x, even);
    add(second, x + 2, odd);
  }
  static HWY_INLINE void add_half(const std::byte* panel, const ggml_bf16_t* x, V& even) { add(load(panel), x, even); }

 private:
  static HWY_INLINE VI32 load(const std::byte* from) {
    return hn::LoadU(I32(), reinterpret_cast<const std::int32_t*>(from));
  }
  static HWY_INLINE void add(VI32 weights, const ggml_bf16_t* x, V& sum) {
    std::int32_t pair;
    std::memcpy(&pair, x, sizeof(pair));
    sum = multiply_add_bf16(weights, hn::Set(I32(), pair), sum);
  }
};
#endif

}  // namespace a2sf::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
