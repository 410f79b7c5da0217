// The activations of a feed-forward network as vectors, one kernel per instruction set.
#pragma once

#include <cstdint>

#include "kernels/backend.h"
#include "kernels/cpu/isa.h"

namespace a2sf::cpu {

// out = activation(gate), times `up` unless that is nullptr. An element's bytes do not depend on where it stands.
using ActivationKernel = void (*)(Activation activation, const float* gate, const float* up, std::int64_t count,
                                  float* out);

// Of avx512, avx2 and portable: kernels.h has them all.
template <Isa isa>
ActivationKernel activation_kernel();

}  // namespace a2sf::cpu
