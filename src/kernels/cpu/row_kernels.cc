// foreach_target.h includes this source once per target of targets.h.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/row_kernels.cc"
// In the order that Highway wants.
// clang-format off
#include "kernels/cpu/targets.h"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
#include <hwy/contrib/math/math-inl.h>
// clang-format on

#include "kernels/cpu/row_kernels.h"
#include "kernels/cpu/chunk_product-inl.h"
#include "kernels/cpu/score_kernels-inl.h"

#include <algorithm>
#include <cmath>
#include <limits>

HWY_BEFORE_NAMESPACE();
namespace a2sf::cpu::HWY_NAMESPACE {

constexpr float kLowest = std::numeric_limits<float>::lowest();

// A whole vector, with zeros in the lanes from `count` on.
HWY_INLINE V load_first(const float* from, int count) {
  const F f;
  if (count >= kLanes) return hn::LoadU(f, from);
  return hn::MaskedLoad(hn::FirstN(f, static_cast<std::size_t>(count)), f, from);
}

HWY_INLINE void store_first(V x, float* to, int count) {
  const F f;
  if (count >= kLanes) return hn::StoreU(x, f, to);
  hn::BlendedStore(x, hn::FirstN(f, static_cast<std::size_t>(count)), f, to);
}

// Adds up term(i), a vector of the columns from i on, over all columns; four sums overlap.
template <class Term>
HWY_INLINE float sum_over(int columns, const Term& term) {
  V sums[4] = {hn::Zero(F()), hn::Zero(F()), hn::Zero(F()), hn::Zero(F())};
  for (int i = 0, chain = 0; i < columns; i += kLanes, chain = (chain + 1) % 4)
    sums[chain] = hn::Add(sums[chain], term(i));
  return hn::GetLane(hn::SumOfLanes(F(), hn::Add(hn::Add(sums[0], sums[1]), hn::Add(sums[2], sums[3]))));
}

void norm(const NormValues& norm, const float* in, int columns, float* out) {
  const F f;
  const auto count = static_cast<float>(columns);
  const V mean =
      hn::Set(f, norm.centred ? sum_over(columns, [&](int i) { return load_first(in + i, columns - i); }) / count : 0);
  const float squares = sum_over(columns, [&](int i) {
    const auto inside = hn::FirstN(f, static_cast<std::size_t>(std::min(columns - i, kLanes)));
    const V x = hn::IfThenElseZero(inside, hn::Sub(load_first(in + i, columns - i), mean));
    return hn::Mul(x, x);
  });
  const V scale = hn::Set(f, 1 / std::sqrt(squares / count + norm.epsilon));
  for (int i = 0; i < columns; i += kLanes) {
    const auto part = [&](const float* from) { return load_first(from + i, columns - i); };
    const V x = hn::Mul(hn::Mul(hn::Sub(part(in), mean), scale), part(norm.weight));
    store_first(norm.bias == nullptr ? x : hn::Add(x, part(norm.bias)), out + i, columns - i);
  }
}

// 0 times a number that is not finite is NaN.
bool finite(const float* x, int count) {
  return sum_over(count, [&](int i) { return hn::Mul(load_first(x + i, count - i), hn::Zero(F())); }) == 0;
}

void rotate(float* head, const float* cosine, const float* sine, int pairs, bool interleaved) {
  const F f;
  int i = 0;
  for (; i + kLanes <= pairs; i += kLanes) {
    const V c = hn::LoadU(f, cosine + i), s = hn::LoadU(f, sine + i);
    V x, y;
    if (interleaved) {
      hn::LoadInterleaved2(f, head + 2 * i, x, y);
    } else {
      x = hn::LoadU(f, head + i);
      y = hn::LoadU(f, head + pairs + i);
    }
    const V rotated_x = hn::NegMulAdd(y, s, hn::Mul(x, c)), rotated_y = hn::MulAdd(x, s, hn::Mul(y, c));
    if (interleaved) {
      hn::StoreInterleaved2(rotated_x, rotated_y, f, head + 2 * i);
    } else {
      hn::StoreU(rotated_x, f, head + i);
      hn::StoreU(rotated_y, f, head + pairs + i);
    }
  }
  for (; i < pairs; ++i) {
    float& x = head[interleaved ? 2 * i : i];
    float& y = head[interleaved ? 2 * i + 1 : pairs + i];
    const float x0 = x, y0 = y;
    x = x0 * cosine[i] - y0 * sine[i];
    y = x0 * sine[i] + y0 * cosine[i];
  }
}

template <class Format>
void store_as(const Chunk& chunk, int slot, int dim, int head_dim, const float* key, const float* value) {
  using T = typename Format::T;
  auto* const keys = reinterpret_cast<T*>(chunk.keys) + slot / kTile * dim * kTile + slot % kTile;
  auto* const values = reinterpret_cast<T*>(chunk.values) + slot * dim;
  for (int d = 0; d < head_dim; d += kLanes) {
    Format::store(load_first(value + d, head_dim - d), values + d);
    T lanes[kLanes];
    Format::store(load_first(key + d, head_dim - d), lanes);
    for (int lane = 0; lane < kLanes; ++lane) keys[(d + lane) * kTile] = lanes[lane];
  }
}

void store(const Chunk& chunk, KvType type, int slot, int dim, int head_dim, const float* key, const float* value) {
  const auto as = type == KvType::f16 ? store_as<FormatF16> : store_as<FormatF32>;
  as(chunk, slot, dim, head_dim, key, value);
}

void bounds(const std::int32_t* positions, int slots, std::int32_t& least, std::int32_t& most) {
  const I32 i;
  auto low = hn::LoadU(i, positions), high = low;
  for (int slot = kLanes; slot < slots; slot += kLanes) {
    const auto position = hn::LoadU(i, positions + slot);
    low = hn::Min(low, position);
    high = hn::Max(high, position);
  }
  least = hn::GetLane(hn::MinOfLanes(i, low));
  most = hn::GetLane(hn::MaxOfLanes(i, high));
}

void mask(float* x, const std::int32_t* positions, int slots, std::int32_t first, std::int32_t last) {
  const F f;
  for (int slot = 0; slot < slots; slot += kLanes) {
    hn::StoreU(hn::IfThenElse(inside(positions + slot, first, last), hn::LoadU(f, x + slot), hn::Set(f, kLowest)), f,
               x + slot);
  }
}

// 2^x for x in [-127, 126], with a relative error of 8e-8; 2^-127 is 0. Adding 1.5 * 2^23 rounds x to a whole number,
// which then is in the low bits of the mantissa and is shifted from there into the exponent.
HWY_INLINE V power_of_two(V x) {
  const F f;
  const I32 i;
  const V rounded = hn::Add(x, hn::Set(f, 0x1.8p23F));
  const V fraction = hn::Sub(x, hn::Sub(rounded, hn::Set(f, 0x1.8p23F)));
  V power = hn::Set(f, 1.55946778e-4F);
  for (const float coefficient : {1.34066434e-3F, 9.61769279e-3F, 5.55031039e-2F, .240226522F, .693147242F, 1.F}) {
    power = hn::MulAdd(power, fraction, hn::Set(f, coefficient));
  }
  return hn::BitCast(f, hn::Add(hn::BitCast(i, power), hn::ShiftLeft<23>(hn::BitCast(i, rounded))));
}

float exponentials(float* x, int slots, float& largest) {
  const F f;
  V most = hn::Set(f, kLowest / 2), sum = hn::Zero(f), nothing = hn::Zero(f);
  for (int slot = 0; slot < slots; slot += kLanes) {
    const V logit = hn::LoadU(f, x + slot);
    most = hn::Max(most, logit);
    nothing = hn::MulAdd(logit, hn::Zero(f), nothing);  // NaN once a logit is not finite
  }
  most = hn::MaxOfLanes(f, most);
  for (int slot = 0; slot < slots; slot += kLanes) {
    const V power = power_of_two(hn::Max(hn::Sub(hn::LoadU(f, x + slot), most), hn::Set(f, -127.0F)));
    hn::StoreU(power, f, x + slot);
    sum = hn::Add(sum, power);
  }
  largest = hn::GetLane(most);
  return hn::GetLane(hn::SumOfLanes(f, hn::Add(sum, nothing)));
}

template <bool kRaised>
void additions_as(const float* x, std::ptrdiff_t step, const float* log_sums, int group, int slots, float* out) {
  const F f;
  const V one = hn::Set(f, 1);
  for (int slot = 0; slot < slots; slot += kLanes) {
    V sum = hn::Zero(f);
    for (int i = 0; i < group; ++i) {
      const V exponent = hn::Sub(hn::Set(f, log_sums[i]), hn::LoadU(f, x + i * step + slot));
      // 2^126 is as good as infinity here, and is none; 2^-126 as good as 0.
      const V odds = power_of_two(hn::Max(hn::Min(exponent, hn::Set(f, 126)), hn::Set(f, -126)));
      sum = add_power<kRaised>(hn::Div(one, hn::Add(one, odds)), one, sum);
    }
    hn::StoreU(sum, f, out + slot);
  }
}

void additions(const float* x, std::ptrdiff_t step, const float* log_sums, int group, bool raised, int slots,
               float* out) {
  (raised ? additions_as<true> : additions_as<false>)(x, step, log_sums, group, slots, out);
}

void add_up(const float* x, std::ptrdiff_t x_step, const float* factors, std::ptrdiff_t factor_step, int count, int dim,
            float* out) {
  const F f;
  for (int d = 0; d < dim; d += kLanes) {
    V sum = hn::Zero(f);
    for (int i = 0; i < count; ++i) {
      sum = hn::MulAdd(hn::Set(f, factors[i * factor_step]), hn::LoadU(f, x + i * x_step + d), sum);
    }
    store_first(sum, out + d, dim - d);
  }
}

// A whole vector of logits. What lies behind the end of their row adds nothing.
HWY_INLINE V load_logits(const float* from, int count) {
  const F f;
  const V nothing = hn::Set(f, -kInfinity);
  if (count >= kLanes) return hn::LoadU(f, from);
  return hn::IfThenElse(hn::FirstN(f, static_cast<std::size_t>(count)), load_first(from, count), nothing);
}

// e^x for x up to 0. Highway's is 0 for NaN, which has to come through. power_of_two() of x / log(2) would have the
// error of that division's rounding as well, which grows with x.
HWY_INLINE V exp_or_nan(V x) { return hn::IfThenElse(hn::IsNaN(x), x, hn::Exp(F(), x)); }

// Floats add up no more than sixteen vectors, so that the error does not grow with the row; the rest is in double.
double log_sum_exp(std::span<const float> logits) {
  constexpr int kBlock = 16 * kLanes;
  const auto count = static_cast<int>(logits.size());
  const auto logits_from = [&](int i) { return load_logits(logits.data() + i, count - i); };
  V most = hn::Set(F(), -kInfinity);
  for (int i = 0; i < count; i += kLanes) most = hn::Max(most, logits_from(i));
  most = hn::MaxOfLanes(F(), most);
  double sum = 0;
  for (int begin = 0; begin < count; begin += kBlock) {
    sum += sum_over(std::min(kBlock, count - begin),
                    [&](int i) { return exp_or_nan(hn::Sub(logits_from(begin + i), most)); });
  }
  return hn::GetLane(most) + std::log(sum);
}

const RowKernels kKernels = {norm,         rotate, store,      multiply,  bounds, finite,     mask,
                             exponentials, score,  find_score, additions, add_up, log_sum_exp};

}  // namespace a2sf::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

namespace a2sf::cpu {
template <>
const RowKernels& row_kernels<HWY_NAMESPACE::kIsa>() {
  return HWY_NAMESPACE::kKernels;
}
}  // namespace a2sf::cpu
