// The instruction sets that kernels are compiled for.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace a2sf::cpu {

// In order, best first.
enum class Isa {
  avx512bf16,  // avx512 and products of bf16
  avx512,      // with VNNI
  avx2,
  portable  // Highway's baseline, on every machine
};

std::string name_of(Isa isa);
std::optional<Isa> isa_of(std::string_view name);  // nullopt: no instruction set is called that

// What this machine can run, best first; `portable` is always the last.
std::vector<Isa> supported_isas();
bool is_supported(Isa isa);

}  // namespace a2sf::cpu
