// The vector form of log_sum_exp against the plain one, for every instruction set of this machine.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/kernels.h"
#include "kernels/logits.h"

namespace a2sf::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kMost = std::numeric_limits<float>::max();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
// Around every number of lanes and four times that, and two vocabularies.
constexpr std::size_t kLengths[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 1000, 49152, 151669};

class LogSumExpKernel : public testing::TestWithParam<Isa> {
 protected:
  static double found(std::span<const float> logits) { return kernels_of(GetParam()).rows.log_sum_exp(logits); }

  // The logarithms differ by the relative error of the sums.
  static void check(const std::vector<float>& logits) {
    EXPECT_NEAR(found(logits), log_sum_exp(logits), 1e-6) << logits.size() << " logits";
  }
};

std::vector<float> random_row(std::size_t length, float deviation, std::mt19937& random) {
  std::normal_distribution<float> normal(-3, deviation);
  std::vector<float> row(length);
  for (float& logit : row) logit = normal(random);
  return row;
}

TEST_P(LogSumExpKernel, MatchesThePlainFormForRandomRows) {
  for (unsigned seed = 1; seed <= 5; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    for (const std::size_t length : kLengths) {
      for (const float deviation : {0.01F, 1.F, 5.F, 100.F}) check(random_row(length, deviation, random));
    }
  }
}

TEST_P(LogSumExpKernel, MatchesThePlainFormWithOneEnormousLogitWhereverItStands) {
  for (unsigned seed = 1; seed <= 5; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    for (const std::size_t length : kLengths) {
      std::vector<float> row = random_row(length, 3, random);
      for (const float enormous : {20.F, 90.F, 1e4F, kMost}) {
        row[random() % length] = enormous;
        check(row);
      }
    }
  }
}

TEST_P(LogSumExpKernel, TakesMinusInfinityForNothing) {
  for (unsigned seed = 1; seed <= 5; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    for (const std::size_t length : kLengths) {
      std::vector<float> row = random_row(length, 3, random);
      for (float& logit : row) {
        if (random() % 4 != 0) logit = -kInfinity;
      }
      row[random() % length] = 1;
      check(row);
    }
  }
}

// Errors of equal terms have one sign, so that they add up where sums of floats are long; those of an exponent grow
// with it.
TEST_P(LogSumExpKernel, HasNoErrorThatGrowsWithTheRow) {
  for (float below = 0; below < 14; below += 0.13F) {
    SCOPED_TRACE(below);
    std::vector<float> row(151669, 2 - below);
    row[777] = 2;
    check(row);
  }
}

TEST_P(LogSumExpKernel, MatchesThePlainFormAtTheEndsOfTheRange) {
  check({kMost, -kMost, kMost});
  check({-kMost, -kMost});
  check({0, -87, -87.5F, -100, -103.9F, -104, -1e30F});
}

TEST_P(LogSumExpKernel, IsNaNWhereThePlainFormIs) {
  for (const std::size_t length : kLengths) {
    for (const std::size_t at : {std::size_t{0}, length / 2, length - 1}) {
      for (const float logit : {kNaN, -std::nanf("0x1234"), kInfinity}) {
        std::vector<float> row(length, 1.5F);
        row[at] = logit;
        ASSERT_TRUE(std::isnan(log_sum_exp(row)));
        EXPECT_TRUE(std::isnan(found(row))) << logit << " at " << at << " of " << length;
      }
    }
    const std::vector<float> nothing(length, -kInfinity);
    ASSERT_TRUE(std::isnan(log_sum_exp(nothing)));
    EXPECT_TRUE(std::isnan(found(nothing))) << length;
  }
}

TEST_P(LogSumExpKernel, GivesARowTheSameBytesWhereverItLies) {
  std::mt19937 random(7);
  const std::vector<float> row = random_row(1003, 3, random);
  const double expected = found(row);
  for (std::size_t offset = 1; offset < 16; ++offset) {
    std::vector<float> memory(offset + row.size() + 16, kNaN);
    std::copy(row.begin(), row.end(), memory.begin() + static_cast<std::ptrdiff_t>(offset));
    EXPECT_EQ(found(std::span(memory).subspan(offset, row.size())), expected) << offset;
  }
}

INSTANTIATE_TEST_SUITE_P(, LogSumExpKernel, testing::ValuesIn(supported_isas()),
                         [](const auto& each) { return name_of(each.param); });

}  // namespace
}  // namespace a2sf::cpu
