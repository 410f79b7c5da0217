// The matrix kernels against plain sums, for every packed type and every instruction set of this machine.
#include "kernels/cpu/panel_kernels.h"

#include <ggml-cpu.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/cpu/matmul.h"
#include "kernels/rows.h"
#include "support/packed_types.h"

namespace a2sf::cpu {
namespace {

// A weight of random values in the file's form.
struct RandomWeight {
  std::vector<std::byte> data;
  WeightView view;

  RandomWeight(ggml_type type, std::int64_t rows, std::int64_t columns, std::mt19937& random) {
    std::normal_distribution<float> normal;
    std::vector<float> values(static_cast<std::size_t>(rows * columns));
    for (float& value : values) value = normal(random);
    data.resize(ggml_row_size(type, columns) * static_cast<std::size_t>(rows));
    ggml_quantize_chunk(type, values.data(), data.data(), 0, rows, columns, nullptr);
    view = {type, rows, columns, data.data()};
  }
};

struct Input {
  std::vector<float> values;
  std::vector<std::int8_t> codes;
  std::vector<InputBlock> blocks;
  std::vector<ggml_bf16_t> rounded;
  std::int64_t columns;
  bool bf16_is_rounded;

  Input(const PanelKernels& kernels, int rows, std::int64_t count, std::mt19937& random)
      : columns(count), bf16_is_rounded(kernels.round_for_bf16) {
    std::normal_distribution<float> normal;
    values.resize(static_cast<std::size_t>(rows * columns));
    for (float& value : values) value = normal(random);
    rounded.resize(values.size());
    ggml_cpu_fp32_to_bf16(values.data(), rounded.data(), static_cast<std::int64_t>(values.size()));
    codes.resize(values.size());
    blocks.resize(values.size() / kInputBlock);
    if (columns % kInputBlock != 0) return;  // only floating-point weights can have such a shape
    for (int row = 0; row < rows; ++row)
      kernels.quantise(values.data() + row * columns, columns, codes.data() + row * columns,
                       blocks.data() + row * columns / kInputBlock);
  }
  PanelInput view() const { return {values.data(), codes.data(), blocks.data(), rounded.data(), columns}; }
  // What weights of a type are multiplied with.
  double seen(int row, std::int64_t column, ggml_type type) const {
    const auto at = static_cast<std::size_t>(row * columns + column);
    if (type == GGML_TYPE_BF16 && bf16_is_rounded) return static_cast<double>(ggml_bf16_to_fp32(rounded[at]));
    if (packed_format(type)->is_float()) return static_cast<double>(values[at]);
    return static_cast<double>(blocks[at / kInputBlock].scale) * codes[at];
  }
};

struct Packed {
  std::vector<std::byte> data;
  PackedWeight weight;

  Packed(const WeightView& view, int lanes) : weight(packed_shape(view, lanes)) {
    data.resize(static_cast<std::size_t>(weight.panels()) * weight.panel_bytes());
    weight.data = data.data();
    ThreadPool pool(1);
    pack(view, weight, pool);
  }
};

class PanelKernelsTest : public testing::TestWithParam<std::tuple<Isa, ggml_type>> {
 protected:
  const PanelKernels& kernels = *kernels_of(std::get<0>(GetParam())).panels;
  const ggml_type type = std::get<1>(GetParam());
  std::mt19937 random{7};
};

std::vector<float> multiply_all(const PanelKernels& kernels, const PackedWeight& weight, const Input& input, int rows,
                                int rows_at_once, const float* bias = nullptr, bool add = false) {
  std::vector<float> out(static_cast<std::size_t>(rows * weight.rows), 1);
  for (int row = 0; row < rows; row += rows_at_once)
    kernels.multiply({&weight, input.view(), bias, {out.data(), static_cast<int>(weight.rows)}, add},
                     {0, weight.panels(), row, std::min(rows, row + rows_at_once)});
  return out;
}

TEST_P(PanelKernelsTest, EqualsThePlainSum) {
  constexpr int kRows = 5;
  for (const std::int64_t outputs : {1, 16, 37}) {
    for (const std::int64_t columns : {256, 768}) {
      const RandomWeight weight(type, outputs, columns, random);
      const Packed packed(weight.view, kernels.lanes);
      const Input input(kernels, kRows, columns, random);
      const std::vector<float> bias(static_cast<std::size_t>(outputs), 0.5F);
      const auto out = multiply_all(kernels, packed.weight, input, kRows, kRows, bias.data(), true);
      std::vector<float> row(static_cast<std::size_t>(columns));
      for (std::int64_t output = 0; output < outputs; ++output) {
        dequantise_row(weight.view, output, row.data());
        for (int r = 0; r < kRows; ++r) {
          double sum = 1.5, magnitude = 1.5;
          for (std::int64_t c = 0; c < columns; ++c) {
            const double product = static_cast<double>(row[static_cast<std::size_t>(c)]) * input.seen(r, c, type);
            sum += product;
            magnitude += std::abs(product);
          }
          ASSERT_NEAR(out[static_cast<std::size_t>(r * outputs + output)], sum, 2e-6 * magnitude)
              << "output " << output << " of " << outputs << ", row " << r << ", " << columns << " columns";
        }
      }
    }
  }
}

// Extreme codes on both sides: nothing overflows.
TEST_P(PanelKernelsTest, HoldsTheLargestCodes) {
  constexpr std::int64_t kColumns = 256, kOutputs = 16;
  std::vector<float> values(kOutputs * kColumns);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = i / kColumns % 2 == 0 ? 1.0F : -1.0F;
  values[3] = -1;  // a range of both signs
  RandomWeight weight(type, kOutputs, kColumns, random);
  ggml_quantize_chunk(type, values.data(), weight.data.data(), 0, kOutputs, kColumns, nullptr);
  const Packed packed(weight.view, kernels.lanes);
  Input input(kernels, 1, kColumns, random);
  for (float& x : input.values) x = 1;
  for (ggml_bf16_t& x : input.rounded) x = ggml_fp32_to_bf16(1);
  for (std::int8_t& code : input.codes) code = 127;
  for (InputBlock& block : input.blocks) block = {1.0F / 127, 32, {16, 16}};
  const auto out = multiply_all(kernels, packed.weight, input, 1, 1);
  std::vector<float> row(kColumns);
  for (std::int64_t output = 0; output < kOutputs; ++output) {
    dequantise_row(weight.view, output, row.data());
    double sum = 0;
    for (const float w : row) sum += static_cast<double>(w);
    EXPECT_NEAR(out[static_cast<std::size_t>(output)], sum, 1e-3) << "output " << output;
  }
}

TEST_P(PanelKernelsTest, BytesDoNotDependOnTheRowsBeside) {
  constexpr int kRows = 19;
  const RandomWeight weight(type, 40, 512, random);
  const Packed packed(weight.view, kernels.lanes);
  const Input input(kernels, kRows, 512, random);
  const auto alone = multiply_all(kernels, packed.weight, input, kRows, 1);
  EXPECT_EQ(alone, multiply_all(kernels, packed.weight, input, kRows, kRows));
  EXPECT_EQ(alone, multiply_all(kernels, packed.weight, input, kRows, 7));
}

INSTANTIATE_TEST_SUITE_P(Isas, PanelKernelsTest,
                         testing::Combine(testing::ValuesIn(test::isas_with_panels()),
                                          testing::ValuesIn(test::packed_types())),
                         [](const auto& instance) {
                           return name_of(std::get<0>(instance.param)) + "_" +
                                  ggml_type_name(std::get<1>(instance.param));
                         });

TEST(PanelKernels, FloatsMayHaveAnyNumberOfColumns) {
  std::mt19937 random(3);
  for (const Isa isa : test::isas_with_panels()) {
    const PanelKernels& kernels = *kernels_of(isa).panels;
    const RandomWeight weight(GGML_TYPE_F16, 9, 33, random);
    const Packed packed(weight.view, kernels.lanes);
    const Input input(kernels, 1, 33, random);
    const auto out = multiply_all(kernels, packed.weight, input, 1, 1);
    std::vector<float> row(33);
    for (std::int64_t output = 0; output < 9; ++output) {
      dequantise_row(weight.view, output, row.data());
      double sum = 0;
      for (std::int64_t c = 0; c < 33; ++c)
        sum += static_cast<double>(row[static_cast<std::size_t>(c)]) * input.seen(0, c, weight.view.type);
      EXPECT_NEAR(out[static_cast<std::size_t>(output)], sum, 1e-4);
    }
  }
}

// In panels they come in pairs: an odd one is left to ggml's dot products.
TEST(PanelKernels, AnOddNumberOfBf16ColumnsIsLeftAsItIs) {
  std::mt19937 random(4);
  const RandomWeight weight(GGML_TYPE_BF16, 3, 33, random);
  for (const Isa isa : test::isas_with_panels()) {
    ThreadPool pool(1);
    Matmul matmul(pool, kernels_of(isa).panels, host_memory());
    WeightView view = weight.view;
    ASSERT_TRUE(matmul.load(view));
    EXPECT_EQ(view.loaded, nullptr);
    std::vector<float> ones(33, 1), out(3), row(33);
    matmul.run({ones.data(), 33}, 1, std::array{HostProduct{&view, nullptr, {out.data(), 3}}});
    for (int output = 0; output < 3; ++output) {
      dequantise_row(weight.view, output, row.data());
      EXPECT_NEAR(out[static_cast<std::size_t>(output)], std::accumulate(row.begin(), row.end(), 0.0F), 1e-4);
    }
  }
}

TEST(PanelKernels, QuantisesToTheNearestCode) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  for (const Isa isa : test::isas_with_panels()) {
    std::vector<float> x(64);
    for (std::size_t i = 0; i < 32; ++i) x[i] = normal(random);  // the second block stays zero
    std::vector<std::int8_t> codes(64, 1);
    std::vector<InputBlock> blocks(2);
    kernels_of(isa).panels->quantise(x.data(), 64, codes.data(), blocks.data());
    double sum = 0;
    for (std::size_t i = 0; i < 32; ++i) {
      EXPECT_NEAR(blocks[0].scale * static_cast<float>(codes[i]), x[i], blocks[0].scale * 0.501F);
      sum += static_cast<double>(blocks[0].scale) * codes[i];
    }
    EXPECT_NEAR(blocks[0].sum, sum, 1e-4);
    EXPECT_NEAR(blocks[0].half_sums[0] + blocks[0].half_sums[1], sum, 1e-4);
    EXPECT_EQ(blocks[1].scale, 0);
    EXPECT_THAT(std::vector<std::int8_t>(codes.begin() + 32, codes.end()), testing::Each(0));
  }
}

}  // namespace
}  // namespace a2sf::cpu
