// What a machine can do at best.
#pragma once

namespace a2sf {

// On the threads of a backend, all together: read memory that is in no cache, multiply codes with integer activations,
// multiply and add floats, and bf16 weights with activations.
struct MachineRates {
  double read_bytes_per_s, byte_products_per_s, float_products_per_s, bf16_products_per_s;
};

}  // namespace a2sf
