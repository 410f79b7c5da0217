// What the GPU's kernels make of weights, on the host: beside ggml.
#include "kernels/cuda/dequantise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/cuda/head.h"

namespace a2sf {
namespace {

constexpr int kColumns = 512, kRows = 5;

class Dequantise : public testing::TestWithParam<ggml_type> {};

TEST_P(Dequantise, EveryValueIsThatOfGgml) {
  const ggml_type type = GetParam();
  const unsigned seed = 1;
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(kRows * kColumns), expected(kColumns);
  for (float& value : values) value = normal(random);
  const std::size_t row_bytes = ggml_row_size(type, kColumns);
  std::vector<std::uint8_t> rows(kRows * row_bytes);
  ggml_quantize_chunk(type, values.data(), rows.data(), 0, kRows, kColumns, nullptr);
  for (int row = 0; row < kRows; ++row) {
    const std::uint8_t* const data = rows.data() + static_cast<std::size_t>(row) * row_bytes;
    ggml_get_type_traits(type)->to_float(data, expected.data(), kColumns);
    ASSERT_TRUE(cuda::with_format(type, [&](auto format) {
      using Format = decltype(format);
      ASSERT_EQ(ggml_row_size(type, Format::block), static_cast<std::size_t>(Format::bytes));
      for (int i = 0; i < kColumns; ++i) {
        const float value = Format::value(data + i / Format::block * Format::bytes, i % Format::block);
        ASSERT_NEAR(value, expected[static_cast<std::size_t>(i)], 1e-6) << "row " << row << ", column " << i;
      }
      for (int part = 0; part < kColumns / 8; ++part) {
        const int column = part * 8 / Format::block * Format::block;
        const cuda::Eight eight =
            Format::eight(data + column / Format::block * Format::bytes, part % (Format::block / 8));
        for (int i = 0; i < 8; ++i) {
          const int at = column + (i < 4 ? eight.first + i : eight.second + i - 4);
          ASSERT_NEAR(eight.values[i], expected[static_cast<std::size_t>(at)], 1e-6)
              << "row " << row << ", part " << part;
        }
      }
    }));
  }
}

INSTANTIATE_TEST_SUITE_P(, Dequantise,
                         testing::Values(GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0, GGML_TYPE_Q4_1,
                                         GGML_TYPE_Q5_0, GGML_TYPE_Q4_K, GGML_TYPE_Q5_K, GGML_TYPE_Q6_K),
                         [](const auto& each) { return std::string(ggml_type_name(each.param)); });

TEST(DeviceHead, ChunksHaveTheSlotsOfThePlan) {
  for (const std::int64_t most : {1, 16, 100, 255, 256, 257, 300, 512, 700}) {
    std::int64_t slots = 0;
    for (int chunk = 0; slots < most; ++chunk) slots += cuda::slots_of_chunk(most, chunk);
    EXPECT_EQ(slots, SlotPlan::bounded(most).room_for(most)) << most;
  }
  EXPECT_EQ(cuda::slots_of_chunk(SlotPlan().most, 1000), kChunk);
}

TEST(DeviceHead, VictimsAreOrderedByScoreThenByAge) {
  EXPECT_LT(cuda::order_of(0, 9), cuda::order_of(1e-30F, 2));
  EXPECT_LT(cuda::order_of(.5F, 2), cuda::order_of(.5F, 9));
  EXPECT_LT(cuda::order_of(.5F, 2000000000), cuda::order_of(3e38F, 0));
}

}  // namespace
}  // namespace a2sf
