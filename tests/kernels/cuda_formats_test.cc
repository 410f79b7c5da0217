// What the GPU's kernels make of weights, on the host: beside ggml.
#include "kernels/cuda/formats.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <span>
#include <vector>

#include "kernels/cuda/head.h"
#include "kernels/rows.h"

namespace a2sf {
namespace {

constexpr int kColumns = 512, kRows = 5;

cuda::FloatUnit random_inputs(cuda::FloatUnit, std::mt19937& random, std::span<float> values) {
  std::normal_distribution<float> normal;
  cuda::FloatUnit inputs;
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = inputs.values[i] = normal(random);
  return inputs;
}
cuda::QuantisedUnit random_inputs(cuda::QuantisedUnit, std::mt19937& random, std::span<float> values) {
  constexpr float kScale = .03F;
  std::uniform_int_distribution<int> number(-127, 127);
  cuda::QuantisedUnit inputs{{}, {}, kScale, 0};
  for (std::size_t i = 0; i < values.size(); ++i) {
    const int q = number(random);
    values[i] = kScale * static_cast<float>(q);
    inputs.sum += values[i];
    auto& words = i < 16 ? inputs.low.words : inputs.high.words;
    words[i % 16 / 4] |= (static_cast<std::uint32_t>(q) & 255U) << 8 * (i % 4);
  }
  return inputs;
}

// A unit times inputs is the sum of its values times them.
template <class Format>
void expect_dot(const typename Format::Unit& unit, std::span<const float> values, std::mt19937& random) {
  std::vector<float> inputs(values.size());
  const auto x = random_inputs(typename Format::Input{}, random, inputs);
  double sum = 0, size = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double term = static_cast<double>(values[i]) * static_cast<double>(inputs[i]);
    sum += term;
    size += std::abs(term);
  }
  ASSERT_NEAR(cuda::dot<Format>(unit, x), sum, 1e-5 * size);
}

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
    dequantise_row({type, kRows, kColumns, reinterpret_cast<const std::byte*>(rows.data())}, row, expected.data());
    ASSERT_TRUE(cuda::with_format(type, [&](auto format) {
      using Format = decltype(format);
      ASSERT_EQ(ggml_row_size(type, Format::block), static_cast<std::size_t>(Format::bytes));
      const cuda::RowLayout layout = cuda::layout_of<Format>(kColumns);
      std::vector<std::uint8_t> packed(static_cast<std::size_t>(layout.bytes));
      cuda::pack_row<Format>(data, kColumns, layout, packed.data());
      for (int u = 0; u < kColumns / Format::unit; ++u) {
        const auto unit = Format::load(packed.data(), layout.offsets, u);
        const std::span<const float> of_unit =
            std::span<const float>(expected).subspan(static_cast<std::size_t>(u * Format::unit), Format::unit);
        for (int i = 0; i < Format::unit; ++i) {
          ASSERT_NEAR(Format::value(unit, i), of_unit[static_cast<std::size_t>(i)], 1e-6)
              << "row " << row << ", column " << u * Format::unit + i;
        }
        expect_dot<Format>(unit, of_unit, random);
      }
    }));
  }
}

INSTANTIATE_TEST_SUITE_P(, Dequantise,
                         testing::Values(GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0,
                                         GGML_TYPE_Q4_1, GGML_TYPE_Q5_0, GGML_TYPE_Q4_K, GGML_TYPE_Q5_K,
                                         GGML_TYPE_Q6_K),
                         [](const auto& each) { return std::string(ggml_type_name(each.param)); });

TEST(DeviceHead, ChunksHaveTheSlotsOfThePlan) {
  for (const std::int64_t most : {1, 16, 100, 255, 256, 257, 300, 512, 700}) {
    std::int64_t slots = 0;
    for (int chunk = 0; slots < most; ++chunk) slots += cuda::slots_of_chunk(most, chunk);
    EXPECT_EQ(slots, SlotPlan::bounded(most).room_for(most)) << most;
  }
  EXPECT_EQ(cuda::slots_of_chunk(SlotPlan().most, 1000), kChunk);
}

TEST(DeviceHead, NoHeadTakesMorePartitionsThanTheLongest) {
  for (int most = 1; most < 9000; most += 61) {
    for (int slots = 1; slots <= most; slots += 7) {
      const cuda::Partitions partitions = cuda::partitions_of(slots);
      ASSERT_LE(partitions.count, cuda::most_partitions(most)) << slots << " of " << most;
      ASSERT_GE(partitions.count * partitions.slots, slots);
      ASSERT_LT((partitions.count - 1) * partitions.slots, slots);
    }
  }
}

TEST(DeviceHead, VictimsAreOrderedByScoreThenByAge) {
  EXPECT_LT(cuda::order_of(0, 9), cuda::order_of(1e-30F, 2));
  EXPECT_LT(cuda::order_of(.5F, 2), cuda::order_of(.5F, 9));
  EXPECT_LT(cuda::order_of(.5F, 2000000000), cuda::order_of(3e38F, 0));
}

}  // namespace
}  // namespace a2sf
