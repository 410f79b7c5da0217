// What tests of packed weights run over.
#pragma once

#include <vector>

#include "kernels/cpu/kernels.h"

namespace a2sf::test {

// The instruction sets of this machine that pack weights.
inline std::vector<cpu::Isa> isas_with_panels() {
  std::vector<cpu::Isa> isas = cpu::supported_isas();
  std::erase_if(isas, [](cpu::Isa isa) { return cpu::kernels_of(isa).panels == nullptr; });
  return isas;
}

inline std::vector<ggml_type> packed_types() {
  std::vector<ggml_type> types;
  for (const cpu::PackedFormat& format : cpu::kPackedFormats) types.push_back(format.type);
  return types;
}

}  // namespace a2sf::test
