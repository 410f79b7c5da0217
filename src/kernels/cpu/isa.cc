#include "kernels/cpu/isa.h"

#include <hwy/targets.h>

#include <algorithm>

namespace a2sf::cpu {
namespace {

struct NamedIsa {
  Isa isa;
  const char* name;
};
constexpr NamedIsa kIsas[] = {
    {Isa::avx512bf16, "avx512bf16"}, {Isa::avx512, "avx512"}, {Isa::avx2, "avx2"}, {Isa::portable, "portable"}};

// What the kernels need and Highway's AVX3 does not promise.
#if HWY_ARCH_X86
bool has_vnni() { return __builtin_cpu_supports("avx512vnni") != 0; }
bool has_bf16() { return __builtin_cpu_supports("avx512bf16") != 0; }
#else
bool has_vnni() { return false; }
bool has_bf16() { return false; }
#endif

}  // namespace

std::string name_of(Isa isa) {
  return std::find_if(std::begin(kIsas), std::end(kIsas), [&](const NamedIsa& named) { return named.isa == isa; })
      ->name;
}

std::optional<Isa> isa_of(std::string_view name) {
  for (const NamedIsa& named : kIsas) {
    if (named.name == name) return named.isa;
  }
  return std::nullopt;
}

bool is_supported(Isa isa) {
  const auto targets = hwy::SupportedTargets();
  switch (isa) {
    case Isa::avx512bf16:
      return is_supported(Isa::avx512) && has_bf16();
    case Isa::avx512:
      return (targets & HWY_AVX3) != 0 && has_vnni();
    case Isa::avx2:
      return (targets & HWY_AVX2) != 0;
    case Isa::portable:
      return true;
  }
  return false;
}

std::vector<Isa> supported_isas() {
  std::vector<Isa> isas;
  for (const NamedIsa& named : kIsas) {
    if (is_supported(named.isa)) isas.push_back(named.isa);
  }
  return isas;
}

}  // namespace a2sf::cpu
