// The vector activations against the plain ones in double, for every instruction set of this machine.
#include "kernels/cpu/activation_kernels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/cpu/kernels.h"
#include "kernels/rows.h"

namespace a2sf::cpu {
namespace {

class ActivationKernels : public testing::TestWithParam<std::tuple<Isa, Activation>> {};

std::vector<float> inputs() {
  std::vector<float> x = {0, -0.0F, 1e-30F, -1e-30F, 1e15F, -1e15F, 3e38F, -3e38F};
  for (int i = -40000; i <= 40000; ++i) x.push_back(static_cast<float>(i) * 1e-3F);
  return x;  // no multiple of a vector
}

TEST_P(ActivationKernels, AgreeWithThePlainForm) {
  const auto& [isa, activation] = GetParam();
  const std::vector<float> in = inputs();
  std::vector<float> alone(in.size()), gated(in.size()), up(in.size());
  for (std::size_t i = 0; i < up.size(); ++i) up[i] = 0.5F + static_cast<float>(i % 7);
  kernels_of(isa).activate(activation, in.data(), nullptr, static_cast<std::int64_t>(in.size()), alone.data());
  kernels_of(isa).activate(activation, in.data(), up.data(), static_cast<std::int64_t>(in.size()), gated.data());
  for (std::size_t i = 0; i < in.size(); ++i) {
    const auto x = static_cast<double>(in[i]);
    const double wanted = activated<double>(activation, x), error = 5e-7 * std::max(1.0, std::abs(x));
    ASSERT_NEAR(static_cast<double>(alone[i]), wanted, error) << x;
    ASSERT_FLOAT_EQ(gated[i], alone[i] * up[i]) << x;
  }
}

TEST_P(ActivationKernels, GiveAnElementTheSameBytesWhereverItStands) {
  const auto& [isa, activation] = GetParam();
  const std::vector<float> in = inputs();
  std::vector<float> whole(in.size()), single(in.size());
  kernels_of(isa).activate(activation, in.data(), nullptr, static_cast<std::int64_t>(in.size()), whole.data());
  for (std::size_t i = 0; i < in.size(); ++i) kernels_of(isa).activate(activation, &in[i], nullptr, 1, &single[i]);
  EXPECT_EQ(whole, single);
}

std::string name_of(const testing::TestParamInfo<ActivationKernels::ParamType>& each) {
  constexpr const char* kNames[] = {"silu", "gelu_tanh", "gelu_erf", "relu"};
  return name_of(std::get<0>(each.param)) + "_" + kNames[static_cast<int>(std::get<1>(each.param))];
}

INSTANTIATE_TEST_SUITE_P(, ActivationKernels,
                         testing::Combine(testing::ValuesIn(supported_isas()),
                                          testing::Values(Activation::silu, Activation::gelu_tanh, Activation::gelu_erf,
                                                          Activation::relu)),
                         name_of);

}  // namespace
}  // namespace a2sf::cpu
