// Models with random weights in the shape of a known one.
#include <a2sf/a2sf.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/random_weights.h"
#include "model/weights.h"

namespace a2sf {
namespace {

std::vector<float> logits_of(const std::string& shape, const ModelOptions& options, std::uint64_t seed) {
  const auto model = Model::random(shape, options, seed);
  if (!model) ADD_FAILURE() << model.error().message;
  auto session = Session::create(*model, {.policy = parse_policy("full").value()}).value();
  const std::vector<std::int32_t> tokens = {1, 2, 3, 40000};
  EXPECT_TRUE(session.feed(tokens));
  return {session.logits().begin(), session.logits().end()};
}

TEST(RandomModel, IsTheSameForTheSameSeedAndFinite) {
  const auto first = logits_of("smollm2-135m:q4_0", {}, 1);
  EXPECT_EQ(first.size(), 49152U);
  EXPECT_TRUE(std::all_of(first.begin(), first.end(), [](float x) { return std::isfinite(x); }));
  EXPECT_GT(*std::max_element(first.begin(), first.end()), *std::min_element(first.begin(), first.end()));
  EXPECT_EQ(logits_of("smollm2-135m:q4_0", {}, 1), first);
  EXPECT_NE(logits_of("smollm2-135m:q4_0", {}, 2), first);
}

// The values are those of the same rows, whatever form a backend gives them.
TEST(RandomModel, IsThatOfMappedWeightsWhereItIsPacked) {
  const auto packed = logits_of("smollm2-135m:q8_0", {}, 1);
  const auto mapped = logits_of("smollm2-135m:q8_0", {.repack = false, .isa = {}}, 1);
  for (std::size_t i = 0; i < packed.size(); ++i) ASSERT_NEAR(packed[i], mapped[i], 0.3) << i;
}

TEST(RandomModel, RefusesWhatIsNotThere) {
  const auto message_of = [](const std::string& shape) { return inspect_shape(shape).error().message; };
  EXPECT_NE(message_of("llama-9:q4_0").find("smollm2-135m"), std::string::npos);
  EXPECT_NE(message_of("llama-3-8b:q8_1").find("q4_0"), std::string::npos);
  EXPECT_NE(message_of("smollm2-135m:q4_K").find("256"), std::string::npos);
}

TEST(RandomModel, HasTheParametersOfTheModelItIsNamedAfter) {
  const auto info = inspect_shape("llama-3-8b:q4_0").value();
  EXPECT_NEAR(static_cast<double>(info.parameters), 8.03e9, 0.01e9);
  EXPECT_EQ(info.kv_heads, 8);
  EXPECT_EQ(inspect_shape("qwen3-0.6b:bf16").value().head_dim, 128);
}

// Of every type that a matrix can have; of those of whose tables ggml takes seconds to make, one.
TEST(RandomRows, AreFiniteAndOfTheirSizeForEveryType) {
  initialise_ggml();
  constexpr std::int64_t kColumns = 512;
  int types = 0;
  for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
    const auto type = static_cast<ggml_type>(i);
    if (ggml_blck_size(type) == 0 || !can_multiply(type)) continue;
    const std::string name = ggml_type_name(type);
    if (name.starts_with("iq") && !name.starts_with("iq4") && type != GGML_TYPE_IQ2_XXS) continue;
    ++types;
    WeightView weight{type, 20, kColumns};
    WeightMemory memory(host_memory());
    ASSERT_TRUE(make_random(weight, RandomRows(weight, WeightRole::matrix, 7), memory));
    std::vector<float> row(kColumns);
    double squares = 0;
    for (int r = 0; r < 20; ++r) {
      if (type == GGML_TYPE_F32) {
        std::copy_n(reinterpret_cast<const float*>(weight.row(r)), kColumns, row.begin());
      } else {
        ggml_get_type_traits(type)->to_float(weight.row(r), row.data(), kColumns);
      }
      for (const float x : row) squares += static_cast<double>(x) * static_cast<double>(x);
    }
    EXPECT_NEAR(squares / 20, 1, 0.6) << ggml_type_name(type);
  }
  EXPECT_GT(types, 15);
}

}  // namespace
}  // namespace a2sf
