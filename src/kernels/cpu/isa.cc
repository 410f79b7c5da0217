#include "kernels/cpu/isa.h"

#include <hwy/targets.h>

namespace a2sf::cpu {

std::vector<std::string> supported_isas() {
  std::vector<std::string> names;
  const auto targets = hwy::SupportedTargets();
  // The matrix kernels want VNNI, which Highway's AVX3 does not ask for.
  if ((targets & HWY_AVX3) != 0 && __builtin_cpu_supports("avx512vnni") != 0) {
    if (__builtin_cpu_supports("avx512bf16") != 0) names.emplace_back("avx512bf16");
    names.emplace_back("avx512");
  }
  if ((targets & HWY_AVX2) != 0) names.emplace_back("avx2");
  names.emplace_back("portable");
  return names;
}

}  // namespace a2sf::cpu
