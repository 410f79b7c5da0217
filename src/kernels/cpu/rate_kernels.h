// What the machine can do at best: loops that do nothing but read, or multiply what is in registers.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/thread_pool.h"
#include "kernels/backend.h"
#include "kernels/cpu/isa.h"

namespace a2sf::cpu {

// Each returns something that depends on all of its work, so that none of it can be left out.
struct RateKernels {
  std::int64_t (*read)(const std::byte* data, std::size_t bytes);  // bytes: a multiple of 256
  // Products of codes and activations, in the way of the matrix kernels.
  std::int64_t (*multiply_bytes)(int rounds);
  std::int64_t (*multiply_floats)(int rounds);
  std::int64_t (*multiply_bf16)(int rounds);                  // in the way of the matrix kernels
  std::int64_t byte_products, float_products, bf16_products;  // in a round
};

// Of avx512bf16, avx512 and avx2: kernels.h has them all.
template <Isa isa>
const RateKernels& rate_kernels();

Result<MachineRates> measure_rates(ThreadPool& pool, const RateKernels& kernels);

}  // namespace a2sf::cpu
