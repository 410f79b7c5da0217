// What the machine can do at best: loops that do nothing but read, or multiply what is in registers.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/thread_pool.h"
#include "kernels/backend.h"
#include "kernels/cpu/isa.h"

namespace a2sf::cpu {

// Each returns a value that depends on all of its work, so that the compiler can leave out none of it.
struct RateKernels {
  std::int64_t (*read)(const std::byte* data, std::size_t bytes);  // bytes: a multiple of 256
  // With the instructions of the matrix kernels: codes and activations, f32, bf16 weights.
  std::int64_t (*multiply_bytes)(int rounds);
  std::int64_t (*multiply_floats)(int rounds);
  std::int64_t (*multiply_bf16)(int rounds);
  std::int64_t byte_products, float_products, bf16_products;  // in a round
};

// Defined for avx512bf16, avx512 and avx2; kernels_of() picks.
template <Isa isa>
const RateKernels& rate_kernels();

Result<MachineRates> measure_rates(ThreadPool& pool, const RateKernels& kernels);

}  // namespace a2sf::cpu
