// foreach_target.h includes this source once per target of targets.h.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/activation_kernels.cc"
// In the order that Highway wants.
// clang-format off
#include "kernels/cpu/targets.h"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>
#include <hwy/contrib/math/math-inl.h>
// clang-format on

#include "kernels/cpu/activation_kernels.h"
#include "kernels/cpu/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace a2sf::cpu::HWY_NAMESPACE {

// x / (1 + e^-y)
HWY_INLINE V times_sigmoid(V x, V y) {
  const F f;
  return hn::Div(x, hn::Add(hn::Set(f, 1.0F), hn::Exp(f, hn::Min(hn::Neg(y), hn::Set(f, 87.0F)))));
}

struct Silu {
  static HWY_INLINE V of(V x) { return times_sigmoid(x, x); }
};

// x/2 (1 + tanh u) = x / (1 + e^-2u) with u = sqrt(2/pi) (x + 0.044715 x^3)
struct GeluTanh {
  static HWY_INLINE V of(V x) {
    const F f;
    const V factor = hn::MulAdd(hn::Mul(x, x), hn::Set(f, 0.071354816F), hn::Set(f, 1.5957691F));
    return times_sigmoid(x, hn::Mul(x, factor));
  }
};

// x/2 (1 + erf z) with z = x/sqrt(2). To avoid cancellation it is computed from q = erfc |z|: x/2 q for x < 0, else
// x - x/2 q. q is a polynomial of 1/(1 + 0.3275911 |z|) times e^-z^2 (Abramowitz and Stegun 7.1.26), with an error of
// 2e-7.
struct GeluErf {
  static HWY_INLINE V of(V x) {
    const F f;
    const V z = hn::Mul(hn::Abs(x), hn::Set(f, 0.70710678F));
    const V t = hn::Div(hn::Set(f, 1.0F), hn::MulAdd(z, hn::Set(f, 0.3275911F), hn::Set(f, 1.0F)));
    V polynomial = hn::Set(f, 1.061405429F);
    for (const float coefficient : {-1.453152027F, 1.421413741F, -0.284496736F, 0.254829592F}) {
      polynomial = hn::MulAdd(polynomial, t, hn::Set(f, coefficient));
    }
    const V power = hn::Exp(f, hn::Max(hn::Neg(hn::Mul(z, z)), hn::Set(f, -87.0F)));
    const V tail = hn::Mul(hn::Mul(x, hn::Set(f, 0.5F)), hn::Mul(hn::Mul(polynomial, t), power));
    return hn::IfThenElse(hn::Lt(x, hn::Zero(f)), tail, hn::Sub(x, tail));
  }
};

struct Relu {
  static HWY_INLINE V of(V x) { return hn::Max(x, hn::Zero(F())); }
};

template <class Function>
void activate_all(const float* gate, const float* up, std::int64_t count, float* out) {
  const F f;
  std::int64_t n = 0;
  for (; n + kLanes <= count; n += kLanes) {
    const V x = Function::of(hn::LoadU(f, gate + n));
    hn::StoreU(up == nullptr ? x : hn::Mul(x, hn::LoadU(f, up + n)), f, out + n);
  }
  for (; n < count; ++n) {
    const float x = hn::GetLane(Function::of(hn::Set(f, gate[n])));
    out[n] = up == nullptr ? x : x * up[n];
  }
}

void activate(Activation activation, const float* gate, const float* up, std::int64_t count, float* out) {
  switch (activation) {
    case Activation::silu:
      return activate_all<Silu>(gate, up, count, out);
    case Activation::gelu_tanh:
      return activate_all<GeluTanh>(gate, up, count, out);
    case Activation::gelu_erf:
      return activate_all<GeluErf>(gate, up, count, out);
    case Activation::relu:
      return activate_all<Relu>(gate, up, count, out);
  }
}

}  // namespace a2sf::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

namespace a2sf::cpu {
template <>
ActivationKernel activation_kernel<HWY_NAMESPACE::kIsa>() {
  return HWY_NAMESPACE::activate;
}
}  // namespace a2sf::cpu
