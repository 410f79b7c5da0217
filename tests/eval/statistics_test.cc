// Figures worked out by hand.
#include "eval/statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace a2sf {
namespace {

TEST(Estimate, OfRightAndWrongHasTheErrorOfAProportion) {
  const std::vector<double> values = {1, 0, 0, 1, 1};
  const Estimate found = estimate(values);
  EXPECT_DOUBLE_EQ(found.mean, 0.6);
  EXPECT_DOUBLE_EQ(found.standard_error, std::sqrt(0.6 * 0.4 / 4));
}

TEST(Estimate, OfFewerThanTwoValuesHasNoError) {
  EXPECT_EQ(estimate(std::vector<double>{3}).mean, 3);
  EXPECT_EQ(estimate(std::vector<double>{3}).standard_error, 0);
  EXPECT_EQ(estimate({}).mean, 0);
}

TEST(McNemar, CountsTheSplitsThatAreAtLeastAsUneven) {
  EXPECT_NEAR(mcnemar_p(1, 5), 2 * (1 + 6) / 64.0, 1e-12);
  EXPECT_NEAR(mcnemar_p(5, 1), 2 * (1 + 6) / 64.0, 1e-12);
  EXPECT_NEAR(mcnemar_p(0, 3), 2 / 8.0, 1e-12);
}

TEST(McNemar, IsOneWhereNothingSpeaksForEither) {
  EXPECT_EQ(mcnemar_p(0, 0), 1);
  EXPECT_EQ(mcnemar_p(4, 4), 1);
}

TEST(McNemar, TakesManyItems) { EXPECT_NEAR(mcnemar_p(4900, 5100), 0.0466, 2e-3); }

}  // namespace
}  // namespace a2sf
