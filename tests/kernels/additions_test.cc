// What a row would add to a cold token's score, however far its logit lies from what the head holds.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/cpu/kernels.h"

namespace a2sf::cpu {
namespace {

class Additions : public testing::TestWithParam<Isa> {};

TEST_P(Additions, AreFiniteFractionsHoweverFarLogitsLieApart) {
  constexpr float kLogSum = 3;
  const std::vector<float> ahead = {-2000, -200, -127, -60, -1, 0, 1, 60, 127, 128, 150, 200, 2000, INFINITY};
  std::vector<float> logits(16, kLogSum), found(16);
  for (std::size_t i = 0; i < ahead.size(); ++i) logits[i] = kLogSum + ahead[i];
  for (const bool raised : {false, true}) {
    kernels_of(GetParam()).rows.additions(logits.data(), 16, &kLogSum, 1, raised, 16, found.data());
    for (std::size_t i = 0; i < ahead.size(); ++i) {
      const double p = 1 / (1 + std::exp2(-static_cast<double>(ahead[i])));
      EXPECT_NEAR(found[i], raised ? std::pow(p, 1.5) : p, 1e-6) << ahead[i] << " ahead";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, Additions, testing::ValuesIn(supported_isas()),
                         [](const auto& each) { return name_of(each.param); });

}  // namespace
}  // namespace a2sf::cpu
