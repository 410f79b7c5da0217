// One source for every instruction set: Highway compiles it once per target. Highway insists on a portable baseline
// too; it is never chosen.
#define HWY_DISABLED_TARGETS (~(HWY_SCALAR | HWY_EMU128 | HWY_AVX2 | HWY_AVX3))
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/row_kernels.cc"
// Highway's own order of includes.
// clang-format off
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
#include <hwy/contrib/math/math-inl.h>
// clang-format on

#include "kernels/cpu/row_kernels.h"

#include <algorithm>
#include <limits>

HWY_BEFORE_NAMESPACE();
namespace a2sf::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// At most 16 lanes, so that a tile of 16 slots is a whole number of vectors.
using F = hn::CappedTag<float, kTile>;
using I = hn::RebindToSigned<F>;
using V = hn::Vec<F>;

struct ReadF32 {
  using T = float;
  static V load(const float* from) { return hn::LoadU(F(), from); }
};
struct ReadF16 {
  using T = hwy::float16_t;
  static V load(const hwy::float16_t* from) {
    const hn::Rebind<hwy::float16_t, F> half;
    return hn::PromoteTo(F(), hn::LoadU(half, from));
  }
};

// Keys of 16 slots at a time: one vector holds one dimension of several slots.
template <class Read, int kGroup>
void logits_of(const Chunk& chunk, int slots, int dim, const float* q, float scale, float* logits,
               std::int64_t stride) {
  const F f;
  constexpr int lanes = static_cast<int>(hn::MaxLanes(F()));
  const auto* keys = reinterpret_cast<const typename Read::T*>(chunk.keys);
  for (int slot = 0; slot < slots; slot += lanes) {
    const auto* tile = keys + static_cast<std::ptrdiff_t>(slot / kTile) * dim * kTile + slot % kTile;
    V even[kGroup], odd[kGroup];  // two chains, so that the adds overlap
    for (int g = 0; g < kGroup; ++g) even[g] = odd[g] = hn::Zero(f);
    for (int i = 0; i < dim; i += 2) {
      const V first = Read::load(tile + i * kTile), second = Read::load(tile + (i + 1) * kTile);
      for (int g = 0; g < kGroup; ++g) {
        even[g] = hn::MulAdd(hn::Set(f, q[g * dim + i]), first, even[g]);
        odd[g] = hn::MulAdd(hn::Set(f, q[g * dim + i + 1]), second, odd[g]);
      }
    }
    for (int g = 0; g < kGroup; ++g) {
      hn::StoreU(hn::Mul(hn::Add(even[g], odd[g]), hn::Set(f, scale)), f, logits + g * stride + slot);
    }
  }
}

template <class Read, int kGroup>
void values_of(const Chunk& chunk, int slots, int dim, const float* p, std::int64_t stride, float* out) {
  const F f;
  constexpr int lanes = static_cast<int>(hn::MaxLanes(F()));
  const auto* values = reinterpret_cast<const typename Read::T*>(chunk.values);
  for (int i = 0; i < dim; i += lanes) {
    V even[kGroup], odd[kGroup];
    for (int g = 0; g < kGroup; ++g) even[g] = odd[g] = hn::Zero(f);
    for (int slot = 0; slot < slots; slot += 2) {
      const V first = Read::load(values + slot * dim + i), second = Read::load(values + (slot + 1) * dim + i);
      for (int g = 0; g < kGroup; ++g) {
        even[g] = hn::MulAdd(hn::Set(f, p[g * stride + slot]), first, even[g]);
        odd[g] = hn::MulAdd(hn::Set(f, p[g * stride + slot + 1]), second, odd[g]);
      }
    }
    for (int g = 0; g < kGroup; ++g) hn::StoreU(hn::Add(even[g], odd[g]), f, out + g * dim + i);
  }
}

template <class Read>
void logits_by_group(const Chunk& chunk, int slots, int dim, int group, const float* q, float scale, float* logits,
                     std::int64_t stride) {
  switch (group) {
    case 1:
      return logits_of<Read, 1>(chunk, slots, dim, q, scale, logits, stride);
    case 2:
      return logits_of<Read, 2>(chunk, slots, dim, q, scale, logits, stride);
    case 3:
      return logits_of<Read, 3>(chunk, slots, dim, q, scale, logits, stride);
    default:
      return logits_of<Read, 4>(chunk, slots, dim, q, scale, logits, stride);
  }
}

template <class Read>
void values_by_group(const Chunk& chunk, int slots, int dim, int group, const float* p, std::int64_t stride,
                     float* out) {
  switch (group) {
    case 1:
      return values_of<Read, 1>(chunk, slots, dim, p, stride, out);
    case 2:
      return values_of<Read, 2>(chunk, slots, dim, p, stride, out);
    case 3:
      return values_of<Read, 3>(chunk, slots, dim, p, stride, out);
    default:
      return values_of<Read, 4>(chunk, slots, dim, p, stride, out);
  }
}

void logits(const Chunk& chunk, KvType type, int slots, int dim, int group, const float* q, float scale, float* to,
            std::int64_t stride) {
  type == KvType::f16 ? logits_by_group<ReadF16>(chunk, slots, dim, group, q, scale, to, stride)
                      : logits_by_group<ReadF32>(chunk, slots, dim, group, q, scale, to, stride);
}

void values(const Chunk& chunk, KvType type, int slots, int dim, int group, const float* p, std::int64_t stride,
            float* out) {
  type == KvType::f16 ? values_by_group<ReadF16>(chunk, slots, dim, group, p, stride, out)
                      : values_by_group<ReadF32>(chunk, slots, dim, group, p, stride, out);
}

float maximum(const float* x, int slots) {
  const F f;
  V largest = hn::Set(f, -std::numeric_limits<float>::infinity());
  for (int slot = 0; slot < slots; slot += static_cast<int>(hn::Lanes(f)))
    largest = hn::Max(largest, hn::LoadU(f, x + slot));
  return hn::GetLane(hn::MaxOfLanes(f, largest));
}

float exponentials(float* x, int slots, float largest) {
  const F f;
  // Exp is defined above about -104; below, as for the -infinity of a free slot, the answer is 0.
  const V least = hn::Set(f, -87.0F);
  V sum = hn::Zero(f);
  for (int slot = 0; slot < slots; slot += static_cast<int>(hn::Lanes(f))) {
    const V shifted = hn::Sub(hn::LoadU(f, x + slot), hn::Set(f, largest));
    const V e = hn::IfThenElseZero(hn::Ge(shifted, least), hn::Exp(f, hn::Max(shifted, least)));
    hn::StoreU(e, f, x + slot);
    sum = hn::Add(sum, e);
  }
  return hn::GetLane(hn::SumOfLanes(f, sum));
}

void score(float* p, std::int64_t stride, int group, const float* inverse, int slots, float alpha, float* scores) {
  const F f;
  for (int slot = 0; slot < slots; slot += static_cast<int>(hn::Lanes(f))) {
    V sum = hn::Zero(f);
    for (int g = 0; g < group; ++g) {
      const V probability = hn::Mul(hn::LoadU(f, p + g * stride + slot), hn::Set(f, inverse[g]));
      hn::StoreU(probability, f, p + g * stride + slot);
      sum = hn::Add(sum, probability);
    }
    hn::StoreU(hn::MulAdd(hn::Set(f, alpha), hn::LoadU(f, scores + slot), sum), f, scores + slot);
  }
}

void multiply(float* x, float factor, int count) {
  const F f;
  for (int i = 0; i < count; i += static_cast<int>(hn::Lanes(f))) {
    hn::StoreU(hn::Mul(hn::LoadU(f, x + i), hn::Set(f, factor)), f, x + i);
  }
}

Lowest lowest(const Chunk& chunk, int slots, std::int32_t first, std::int32_t last) {
  const F f;
  const I i;
  const int lanes = static_cast<int>(hn::Lanes(f));
  const V infinity = hn::Set(f, std::numeric_limits<float>::infinity());
  const auto evictable_scores = [&](int slot) {
    const auto position = hn::LoadU(i, chunk.positions + slot);
    const auto inside = hn::And(hn::Gt(position, hn::Set(i, first - 1)), hn::Lt(position, hn::Set(i, last + 1)));
    return hn::IfThenElse(hn::RebindMask(f, inside), hn::LoadU(f, chunk.scores + slot), infinity);
  };
  V least = infinity;
  for (int slot = 0; slot < slots; slot += lanes) least = hn::Min(least, evictable_scores(slot));
  Lowest found{hn::GetLane(hn::MinOfLanes(f, least)), std::numeric_limits<std::int32_t>::max(), -1};
  if (found.score == std::numeric_limits<float>::infinity()) return found;
  const V target = hn::Set(f, found.score);
  for (int slot = 0; slot < slots; slot += lanes) {
    if (hn::AllFalse(f, hn::Eq(evictable_scores(slot), target))) continue;
    for (int s = slot; s < slot + lanes; ++s) {
      const std::int32_t position = chunk.positions[s];
      if (chunk.scores[s] != found.score || position < first || position > last || position >= found.position) continue;
      found.position = position;
      found.slot = s;
    }
  }
  return found;
}

void silu_multiply(float* gate, const float* up, std::int64_t count) {
  const F f;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(f));
  const auto gated = [&](V x, V y) {
    const V e = hn::Exp(f, hn::Min(hn::Neg(x), hn::Set(f, 87.0F)));
    return hn::Mul(hn::Div(x, hn::Add(hn::Set(f, 1.0F), e)), y);
  };
  std::int64_t n = 0;
  for (; n + lanes <= count; n += lanes) hn::StoreU(gated(hn::LoadU(f, gate + n), hn::LoadU(f, up + n)), f, gate + n);
  for (; n < count; ++n) gate[n] = hn::GetLane(gated(hn::Set(f, gate[n]), hn::Set(f, up[n])));
}

// Unused in the baseline.
[[maybe_unused]] const RowKernels kKernels = {logits, exponentials, maximum, score, multiply, values, lowest, silu_multiply};

}  // namespace a2sf::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace a2sf::cpu {

std::vector<std::string> supported_isas() {
  std::vector<std::string> names;
  const auto targets = hwy::SupportedTargets();
  if ((targets & HWY_AVX3) != 0) names.emplace_back("avx512");
  if ((targets & HWY_AVX2) != 0) names.emplace_back("avx2");
  return names;
}

const RowKernels* find_row_kernels(const std::string& isa) {
  const auto names = supported_isas();
  if (std::find(names.begin(), names.end(), isa) == names.end()) return nullptr;
  return isa == "avx512" ? &N_AVX3::kKernels : &N_AVX2::kKernels;
}

}  // namespace a2sf::cpu
#endif
