// foreach_target.h includes this source once per target of targets.h.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/panel_kernels.cc"
// In the order that Highway wants.
// clang-format off
#include "kernels/cpu/targets.h"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
// clang-format on

#include "kernels/cpu/panel_kernels.h"

#include <algorithm>

#include "kernels/cpu/float_columns-inl.h"
#include "kernels/cpu/packed_codes-inl.h"

#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
HWY_PUSH_ATTRIBUTES(A2SF_TARGET)
namespace a2sf::cpu::HWY_NAMESPACE {

// Rows of the micro-kernel: so many share a pass over the weights that their sums and eight vectors of codes fill the
// registers.
constexpr int kRows = kLanes == 16 ? 8 : 4;

// ---- one panel times kCount rows: sums[row] += panel x row

template <ggml_type kType>
struct Integers {
  template <int kCount>
  static HWY_INLINE void multiply(const PanelProduct& product, const std::byte* panel, int row, V (&sums)[kCount]) {
    using Weights = Sub<kType>;
    constexpr PackedFormat format = Weights::format;
    const std::int64_t columns = product.input.columns, input_blocks = columns / kInputBlock;
    const std::int8_t* codes = product.input.codes + row * columns;
    const InputBlock* blocks = product.input.blocks + row * input_blocks;
    const auto* record = reinterpret_cast<const std::uint8_t*>(panel);
    for (std::int64_t column = 0; column < columns; column += format.block, record += format.record_bytes(kLanes)) {
      if constexpr (kCount == 1) prefetch<format.record_bytes(kLanes)>(record + kPrefetchDistance);
      for (int index = 0; index < format.block / format.sub; ++index) {
        Weights weights;
        weights.load(record, index);
        const std::int64_t at = column + index * format.sub;
        A2SF_UNROLL
        for (int i = 0; i < kCount; ++i) {
          const InputBlock& block = blocks[i * input_blocks + at / kInputBlock];
          const V products = hn::ConvertTo(F(), weights.times(codes + i * columns + at));
          sums[i] = hn::MulAdd(hn::Mul(weights.scale, hn::Set(F(), block.scale)), products, sums[i]);
          if constexpr (Weights::has_minimum) {
            const float sum = format.sub == kInputBlock ? block.sum : block.half_sums[index % 2];
            sums[i] = hn::MulAdd(weights.minimum, hn::Set(F(), sum), sums[i]);
          }
        }
      }
    }
  }
};

// Two vectors of weights at a time, each with sums of its own, so that the additions overlap. Pair is TwoColumns or
// FourRounded.
template <class Pair>
struct Floats {
  template <int kCount>
  static HWY_INLINE void multiply(const PanelProduct& product, const std::byte* panel, int row, V (&sums)[kCount]) {
    const std::int64_t columns = product.input.columns;
    const auto* x = Pair::activations(product.input) + row * columns;
    V others[kCount];
    A2SF_UNROLL
    for (V& sum : others) sum = hn::Zero(F());
    std::int64_t column = 0;
    for (; column + Pair::columns <= columns; column += Pair::columns, panel += Pair::bytes) {
      if constexpr (kCount == 1) prefetch<Pair::bytes>(panel + kPrefetchDistance);
      const Pair pair(panel);
      A2SF_UNROLL
      for (int i = 0; i < kCount; ++i) pair.add_products(x + i * columns + column, sums[i], others[i]);
    }
    A2SF_UNROLL
    for (int i = 0; i < kCount; ++i) {
      if (column < columns) Pair::add_half(panel, x + i * columns + column, sums[i]);
      sums[i] = hn::Add(sums[i], others[i]);
    }
  }
};

// ---- ranges

HWY_INLINE void write(const PanelProduct& product, std::int64_t panel, int row, V sum) {
  float values[kLanes];
  hn::StoreU(sum, F(), values);
  const std::int64_t first = panel * kLanes;
  const int count = static_cast<int>(std::min<std::int64_t>(kLanes, product.weight->rows - first));
  float* out = product.out.row(row) + first;
  for (int i = 0; i < count; ++i) {
    out[i] = (product.add ? out[i] : 0) + values[i] + (product.bias == nullptr ? 0 : product.bias[first + i]);
  }
}

template <class Kernel, int kCount>
void multiply_rows(const PanelProduct& product, std::int64_t panel, int row) {
  V sums[kCount];
  A2SF_UNROLL
  for (V& sum : sums) sum = hn::Zero(F());
  Kernel::multiply(product, product.weight->panel(panel), row, sums);
  A2SF_UNROLL
  for (int i = 0; i < kCount; ++i) write(product, panel, row + i, sums[i]);
}

template <class Kernel>
void multiply_range(const PanelProduct& product, const PanelRange& range) {
  for (std::int64_t panel = range.first_panel; panel < range.last_panel; ++panel) {
    int row = range.first_row;
    for (; row + kRows <= range.last_row; row += kRows) multiply_rows<Kernel, kRows>(product, panel, row);
    for (; row < range.last_row; ++row) multiply_rows<Kernel, 1>(product, panel, row);
  }
}

void multiply(const PanelProduct& product, const PanelRange& range) {
  switch (product.weight->format->type) {
    case GGML_TYPE_Q4_0:
      return multiply_range<Integers<GGML_TYPE_Q4_0>>(product, range);
    case GGML_TYPE_Q4_1:
      return multiply_range<Integers<GGML_TYPE_Q4_1>>(product, range);
    case GGML_TYPE_Q5_0:
      return multiply_range<Integers<GGML_TYPE_Q5_0>>(product, range);
    case GGML_TYPE_Q8_0:
      return multiply_range<Integers<GGML_TYPE_Q8_0>>(product, range);
    case GGML_TYPE_Q4_K:
      return multiply_range<Integers<GGML_TYPE_Q4_K>>(product, range);
    case GGML_TYPE_Q6_K:
      return multiply_range<Integers<GGML_TYPE_Q6_K>>(product, range);
    case GGML_TYPE_BF16:
      return multiply_range<Floats<TwoColumns<GGML_TYPE_BF16>>>(product, range);
    case GGML_TYPE_F16:
      return multiply_range<Floats<TwoColumns<GGML_TYPE_F16>>>(product, range);
    default:
      return multiply_range<Floats<TwoColumns<GGML_TYPE_F32>>>(product, range);
  }
}

// ---- activations to integers

void quantise(const float* x, std::int64_t columns, std::int8_t* codes, InputBlock* blocks) {
  const F f;
  const hn::Rebind<std::int8_t, F> narrow;
  const hn::Rebind<std::int16_t, F> middle;
  for (std::int64_t column = 0; column < columns; column += kInputBlock, ++blocks) {
    V largest = hn::Zero(f);
    for (int i = 0; i < kInputBlock; i += kLanes) largest = hn::Max(largest, hn::Abs(hn::LoadU(f, x + column + i)));
    const float scale = hn::GetLane(hn::MaxOfLanes(f, largest)) / 127;
    const V inverse = hn::Set(f, scale > 1e-30F ? 1 / scale : 0);  // the inverse of a smaller one may overflow
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

const PanelKernels kPanelKernels = {kLanes, false, quantise, multiply};

#if HWY_TARGET == HWY_AVX3
void multiply_bf16(const PanelProduct& product, const PanelRange& range) {
  if (product.weight->format->type != GGML_TYPE_BF16) return multiply(product, range);
  multiply_range<Floats<FourRounded>>(product, range);
}

const PanelKernels kBf16Kernels = {kLanes, true, quantise, multiply_bf16};
#endif

}  // namespace a2sf::cpu::HWY_NAMESPACE
HWY_POP_ATTRIBUTES

namespace a2sf::cpu {
template <>
const PanelKernels& panel_kernels<HWY_NAMESPACE::kIsa>() {
  return HWY_NAMESPACE::kPanelKernels;
}
#if HWY_TARGET == HWY_AVX3
template <>
const PanelKernels& panel_kernels<Isa::avx512bf16>() {
  return HWY_NAMESPACE::kBf16Kernels;
}
#endif
}  // namespace a2sf::cpu
#endif
