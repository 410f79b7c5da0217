// The names of instruction sets, and which of them a machine runs.
#include "kernels/cpu/isa.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace a2sf::cpu {
namespace {

TEST(Isa, ANameReadsBack) {
  for (const Isa isa : {Isa::avx512bf16, Isa::avx512, Isa::avx2, Isa::portable}) EXPECT_EQ(isa_of(name_of(isa)), isa);
}

TEST(Isa, OnlyAWholeNameIsOne) {
  for (const char* name : {"", "avx", "avx512f", "AVX2", "portable "}) EXPECT_EQ(isa_of(name), std::nullopt) << name;
}

TEST(Isa, SupportedOnesComeBestFirstAndEndWithPortable) {
  const auto isas = supported_isas();
  EXPECT_THAT(isas, testing::Each(testing::Truly(is_supported)));
  EXPECT_TRUE(std::is_sorted(isas.begin(), isas.end()));
  EXPECT_EQ(isas.back(), Isa::portable);
}

}  // namespace
}  // namespace a2sf::cpu
