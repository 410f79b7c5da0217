// The table of kernels: what computes on each instruction set.
#pragma once

#include "kernels/cpu/activation_kernels.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/panel_kernels.h"
#include "kernels/cpu/rate_kernels.h"
#include "kernels/cpu/row_kernels.h"

namespace a2sf::cpu {

// The kernels of one instruction set. They last as long as the program.
struct Kernels {
  const RowKernels& rows;
  ActivationKernel activate;
  const PanelKernels* panels;  // nullptr: weights are multiplied as they are mapped
  const RateKernels* rates;    // nullptr: what the machine can do at best is not measured
};

// `isa` must be one of supported_isas(): others may not be in this build.
Kernels kernels_of(Isa isa);

}  // namespace a2sf::cpu
