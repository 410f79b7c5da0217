// What tests of packed weights run over.
#pragma once

#include <string>
#include <vector>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/panel_kernels.h"

namespace a2sf::test {

// The instruction sets of this machine that pack weights.
inline std::vector<std::string> isas_with_panels() {
  std::vector<std::string> isas = cpu::supported_isas();
  std::erase_if(isas, [](const std::string& isa) { return cpu::panel_kernels(isa) == nullptr; });
  return isas;
}

inline std::vector<ggml_type> packed_types() {
  std::vector<ggml_type> types;
  for (const cpu::PackedFormat& format : cpu::kPackedFormats) types.push_back(format.type);
  return types;
}

}  // namespace a2sf::test
