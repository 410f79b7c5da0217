// The instruction sets that kernels are compiled for, by name.
#pragma once

#include <string>
#include <vector>

namespace a2sf::cpu {

// The names this machine can run, best first: "avx512bf16", "avx512", "avx2", and everywhere "portable".
std::vector<std::string> supported_isas();

// Whether its kernels are compiled for Highway's AVX3.
inline bool is_avx512(const std::string& isa) { return isa.starts_with("avx512"); }

}  // namespace a2sf::cpu
