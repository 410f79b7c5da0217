// The activations of feed-forward layers.
#pragma once

#include "kernels/backend.h"

namespace a2sf::cuda {

__device__ inline float activated(Activation activation, float x) {
  switch (activation) {
    case Activation::silu:
      return x / (1 + expf(-x));
    case Activation::gelu_tanh: {  // x/2 (1 + tanh u) = x / (1 + exp(-2u)) with u = sqrt(2/pi) (x + 0.044715 x^3)
      const float u = 0.7978845608028654F * (x + 0.044715F * x * x * x);
      return x / (1 + expf(-2 * u));
    }
    case Activation::gelu_erf:
      return x / 2 * (1 + erff(x * 0.7071067811865476F));
    case Activation::relu:
      break;
  }
  return fmaxf(x, 0);
}

}  // namespace a2sf::cuda
