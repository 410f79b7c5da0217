// The activations of a feed-forward network as vectors, one kernel per instruction set.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/backend.h"

namespace a2sf::cpu {

// out = activation(gate), times `up` unless that is nullptr. An element's bytes do not depend on where it stands.
using ActivationKernel = void (*)(Activation activation, const float* gate, const float* up, std::int64_t count,
                                  float* out);

// Of an instruction set that this machine has (find_row_kernels).
ActivationKernel activation_kernel(const std::string& isa);

}  // namespace a2sf::cpu
