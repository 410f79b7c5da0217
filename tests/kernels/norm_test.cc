// The vector form of a norm against the plain one, for every instruction set of this machine.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/kernels.h"
#include "kernels/rows.h"

namespace a2sf::cpu {
namespace {

struct NormCase {
  NormKind kind;
  bool has_bias;
  int columns;
};

std::string shape_name(const testing::TestParamInfo<NormCase>& info) {
  return std::string(info.param.kind == NormKind::rms ? "rms" : "layer") + (info.param.has_bias ? "_bias_" : "_") +
         std::to_string(info.param.columns);
}

class NormTest : public testing::TestWithParam<NormCase> {};

TEST_P(NormTest, MatchesThePlainFormAndWritesNothingBehindItsColumns) {
  const auto [kind, has_bias, columns_of_row] = GetParam();
  const int columns = columns_of_row;  // for a lambda
  std::mt19937 random(7);
  std::normal_distribution<float> normal(3, 2);  // the mean matters
  const auto count = static_cast<std::size_t>(columns);
  std::vector<float> x(count), weight(count), bias(count);
  for (auto* values : {&x, &weight, &bias}) {
    for (float& value : *values) value = normal(random);
  }
  const auto view = [&](std::vector<float>& values) {
    return WeightView{GGML_TYPE_F32, 1, columns, reinterpret_cast<std::byte*>(values.data())};
  };
  const Norm norm{kind, 1e-5F, view(weight), has_bias ? view(bias) : WeightView{}};
  std::vector<float> expected(count);
  norm_row(norm, x.data(), columns, expected.data());
  for (const Isa isa : supported_isas()) {
    SCOPED_TRACE(name_of(isa));
    std::vector<float> out = x;
    out.resize(count + 16, 42.F);
    kernels_of(isa).rows.norm({kind == NormKind::layer, norm.epsilon, weight.data(), has_bias ? bias.data() : nullptr},
                              out.data(), columns, out.data());
    for (std::size_t i = 0; i < count; ++i) ASSERT_NEAR(out[i], expected[i], 2e-5F) << "column " << i;
    EXPECT_THAT(std::vector<float>(out.begin() + columns, out.end()), testing::Each(42.F));
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, NormTest,
                         testing::Values(NormCase{NormKind::rms, false, 576}, NormCase{NormKind::rms, false, 7},
                                         NormCase{NormKind::rms, true, 80}, NormCase{NormKind::layer, true, 768},
                                         NormCase{NormKind::layer, false, 37}),
                         shape_name);

}  // namespace
}  // namespace a2sf::cpu
