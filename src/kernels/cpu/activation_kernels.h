// The activation functions of feed-forward networks, vectorised.
#pragma once

#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cpu/isa.h"

namespace a2sf::cpu {

// out = activation(gate), times `up` unless that is nullptr. An element's bytes do not depend on its index.
using ActivationKernel = void (*)(Activation activation, const float* gate, const float* up, std::int64_t count,
                                  float* out);

// Defined for avx512, avx2 and portable; kernels_of() picks.
template <Isa isa>
ActivationKernel activation_kernel();

}  // namespace a2sf::cpu
