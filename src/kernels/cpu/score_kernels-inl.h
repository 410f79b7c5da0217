// What a row does to the scores of a chunk, compiled per instruction set.
#if defined(A2SF_SCORE_KERNELS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef A2SF_SCORE_KERNELS_INL_H
#undef A2SF_SCORE_KERNELS_INL_H
#else
#define A2SF_SCORE_KERNELS_INL_H
#endif

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>

#include "kernels/cpu/row_kernels.h"
#include "kernels/cpu/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace a2sf::cpu::HWY_NAMESPACE {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Lanes whose position is in [first, last].
HWY_INLINE hn::Mask<F> inside(const std::int32_t* positions, std::int32_t first, std::int32_t last) {
  const I32 i;
  const auto position = hn::LoadU(i, positions);
  return hn::RebindMask(F(), hn::And(hn::Gt(position, hn::Set(i, first - 1)), hn::Gt(hn::Set(i, last + 1), position)));
}

// sum + p, or + p^1.5.
template <bool kRaised>
HWY_INLINE V add_power(V x, V factor, V sum) {
  if constexpr (kRaised) {
    const V p = hn::Mul(x, factor);
    return hn::MulAdd(p, hn::Sqrt(p), sum);
  } else {
    return hn::MulAdd(x, factor, sum);
  }
}

// A policy that does without a part of the rule does not pay for it: each combination is a function of its own.
enum ScorePart : unsigned { kRaises = 1, kWeighs = 2, kHasClasses = 4, kHasThreshold = 8, kScoreRules = 16 };

inline unsigned parts_of(const ScoreUpdate& update) {
  return (update.raised ? kRaises : 0U) | (update.weighted ? kWeighs : 0U) | (update.classes >= 0 ? kHasClasses : 0U) |
         (update.threshold > 0 ? kHasThreshold : 0U);
}

template <unsigned kParts>
HWY_INLINE V add_probability(V x, V factor, const ScoreUpdate& update, V sum) {
  constexpr bool kRaised = (kParts & kRaises) != 0;
  if constexpr ((kParts & kHasThreshold) != 0) {
    const F f;
    const V p = hn::Mul(x, factor);
    return add_power<kRaised>(hn::IfThenElseZero(hn::Ge(p, hn::Set(f, update.threshold)), p), hn::Set(f, 1), sum);
  } else {
    return add_power<kRaised>(x, factor, sum);
  }
}

template <unsigned kParts>
float score_as(const float* x, std::ptrdiff_t step, int group, const float* factors, const Chunk& chunk, int slots,
               const ScoreUpdate& update) {
  const F f;
  const float *forgetting = nullptr, *gain = nullptr;
  if constexpr ((kParts & kHasClasses) != 0) {
    forgetting = chunk.numbers + update.classes * chunk.slots;
    gain = forgetting + chunk.slots;
  }
  V lowest = hn::Set(f, kInfinity);
  for (int slot = 0; slot < slots; slot += kLanes) {
    V sum = hn::Zero(f), alpha = hn::Set(f, update.alpha);
    for (int g = 0; g < group; ++g)
      sum = add_probability<kParts>(hn::LoadU(f, x + g * step + slot), hn::Set(f, factors[g]), update, sum);
    if constexpr ((kParts & kHasClasses) != 0) {
      const V forgets = hn::Set(f, update.forgets);
      alpha = hn::Max(hn::NegMulAdd(forgets, hn::LoadU(f, forgetting + slot), hn::Set(f, 1)), hn::Zero(f));
      sum = hn::Mul(sum, hn::LoadU(f, gain + slot));
    }
    const V scores = hn::MulAdd(alpha, hn::LoadU(f, chunk.scores + slot), sum);
    hn::StoreU(scores, f, chunk.scores + slot);
    const V weighted = (kParts & kWeighs) != 0 ? hn::Mul(scores, hn::LoadU(f, chunk.numbers + slot)) : scores;
    const auto may_go = inside(chunk.positions + slot, update.first, update.last);
    lowest = hn::Min(lowest, hn::IfThenElse(may_go, weighted, hn::Set(f, kInfinity)));
  }
  return hn::GetLane(hn::MinOfLanes(f, lowest));
}

template <unsigned... kParts>
constexpr auto score_functions(std::integer_sequence<unsigned, kParts...>) {
  return std::array{score_as<kParts>...};
}

inline float score(const float* x, std::ptrdiff_t step, int group, const float* factors, const Chunk& chunk, int slots,
                   const ScoreUpdate& update) {
  static constexpr auto kFunctions = score_functions(std::make_integer_sequence<unsigned, kScoreRules>());
  return kFunctions[parts_of(update)](x, step, group, factors, chunk, slots, update);
}

template <bool kWeighted>
int find_score_as(const Chunk& chunk, int slots, float score, const ScoreUpdate& update) {
  const F f;
  const auto scores_from = [&](int slot) {
    const V scores = hn::LoadU(f, chunk.scores + slot);
    return kWeighted ? hn::Mul(scores, hn::LoadU(f, chunk.numbers + slot)) : scores;
  };
  int found = -1;
  for (int slot = 0; slot < slots; slot += kTile) {
    auto equal = hn::Eq(scores_from(slot), hn::Set(f, score));
    for (int lane = kLanes; lane < kTile; lane += kLanes)
      equal = hn::Or(equal, hn::Eq(scores_from(slot + lane), hn::Set(f, score)));
    if (hn::AllFalse(f, equal)) continue;
    for (int s = slot; s < slot + kTile; ++s) {
      const std::int32_t position = chunk.positions[s];
      const float own = kWeighted ? chunk.scores[s] * chunk.numbers[s] : chunk.scores[s];
      if (own != score || position < update.first || position > update.last) continue;
      if (found < 0 || position < chunk.positions[found]) found = s;
    }
  }
  return found;
}

inline int find_score(const Chunk& chunk, int slots, float score, const ScoreUpdate& update) {
  return (update.weighted ? find_score_as<true> : find_score_as<false>)(chunk, slots, score, update);
}

}  // namespace a2sf::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
