#include "json_lines.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <limits>
#include <vector>

namespace a2sf::app {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(JsonNumbers, AreJsonWhateverTheyAre) {
  const std::vector<float> numbers = {0.1F, std::numeric_limits<float>::quiet_NaN(), -kInfinity, 1e-38F, kInfinity, 3};
  EXPECT_EQ(json_numbers(numbers), "0.1,null,null,1e-38,null,3");
  const auto read = nlohmann::json::parse("[" + json_numbers(numbers) + "]");
  EXPECT_EQ(read[3].get<float>(), 1e-38F);
  EXPECT_EQ(json_numbers({}), "");
}

}  // namespace
}  // namespace a2sf::app
