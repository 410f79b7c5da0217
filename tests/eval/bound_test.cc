#include "eval/bound.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>

#include "support/tiny_model.h"

namespace a2sf {
namespace {

// The tiny model: 2 layers of matrices 64 x 64 (q, output), 32 x 64 (k, v), 96 x 64 (gate, up), 64 x 96 (down), that is
// 30,720 weights each, and a head of 128 x 64. Attention has 4 heads, 2 KV heads, and 16 elements each.
constexpr double kLayerWeights = 2 * 30720, kHeadWeights = 8192;

std::shared_ptr<const Model> bound_model(ggml_type type) {
  const std::string path = write_tiny_model({.type = type}, temporary_path("bound.gguf"));
  auto model = Model::load(path).value();
  std::filesystem::remove(path);
  return model;
}

constexpr double kNoTime = 1e30;  // per second: costs nothing

SpeedBound bound(ggml_type type, const SpeedTest& test, const MachineRates& rates) {
  const SpeedResult measured{{1}, 0, 0, 10, 0.5, 0.25};  // every token attends to 10
  return bound_of(rates, *bound_model(type), test, measured);
}

SpeedTest decode() { return {.decode = true, .tokens = 4, .depth = 0, .repeats = 1, .policy = {}}; }
SpeedTest prompt_of_8() { return {.decode = false, .tokens = 8, .depth = 0, .repeats = 1, .policy = {}}; }

TEST(Bound, ADecodedTokenReadsAllWeightsAndAllItAttendsTo) {
  const SpeedBound read = bound(GGML_TYPE_F32, decode(), {1000, kNoTime, kNoTime, kNoTime});
  ASSERT_EQ(read.operations.size(), 2U);
  EXPECT_DOUBLE_EQ(read.operations[0].bound, (kLayerWeights + kHeadWeights) * 4 / 1000);
  // 10 tokens in 2 layers and 2 KV heads: a key and a value of 16 f16, and 8 bytes of score and position.
  EXPECT_DOUBLE_EQ(read.operations[1].bound, 10 * 2 * 2 * (2 * 16 * 2 + 8) / 1000.0);
  EXPECT_DOUBLE_EQ(read.tokens_per_s, 1 / (read.operations[0].bound + read.operations[1].bound));
  EXPECT_EQ(read.operations[0].seconds, 0.5);
  EXPECT_EQ(read.operations[1].seconds, 0.25);
}

TEST(Bound, KeysAndValuesInF32AreTwiceAsLong) {
  SpeedTest test = decode();
  test.kv_type = KvType::f32;
  EXPECT_DOUBLE_EQ(bound(GGML_TYPE_F32, test, {1000, kNoTime, kNoTime, kNoTime}).operations[1].bound,
                   10 * 2 * 2 * (2 * 16 * 4 + 8) / 1000.0);
}

TEST(Bound, AttentionMultipliesEveryHeadWithKeysAndValues) {
  EXPECT_DOUBLE_EQ(bound(GGML_TYPE_F32, decode(), {kNoTime, kNoTime, 1000, kNoTime}).operations[1].bound,
                   10 * 2 * 4 * (16 + 16) / 1000.0);
}

TEST(Bound, ThePromptSharesTheWeightsAndTheHead) {
  const SpeedBound read = bound(GGML_TYPE_F32, prompt_of_8(), {1000, kNoTime, kNoTime, kNoTime});
  EXPECT_DOUBLE_EQ(read.operations[0].bound, (kLayerWeights + kHeadWeights) * 4 / 8 / 1000);
  EXPECT_LT(read.operations[1].bound, 1e-20);  // what it attends to is in caches
  const SpeedBound multiply = bound(GGML_TYPE_F32, prompt_of_8(), {kNoTime, kNoTime, 1000, kNoTime});
  EXPECT_DOUBLE_EQ(multiply.operations[0].bound, (kLayerWeights + kHeadWeights / 8) / 1000);
}

TEST(Bound, SequencesThatDecodeTogetherShareTheWeights) {
  SpeedTest test = decode();
  test.sequences = 4;
  const SpeedBound read = bound(GGML_TYPE_F32, test, {1000, kNoTime, kNoTime, kNoTime});
  EXPECT_DOUBLE_EQ(read.operations[0].bound, (kLayerWeights + kHeadWeights) * 4 / 4 / 1000);
  EXPECT_DOUBLE_EQ(read.operations[1].bound, 10 * 2 * 2 * (2 * 16 * 2 + 8) / 1000.0);  // each its own cache
}

TEST(Bound, ProductsTakeTheRateOfTheirType) {
  const double products = kLayerWeights + kHeadWeights;
  EXPECT_DOUBLE_EQ(bound(GGML_TYPE_BF16, decode(), {kNoTime, kNoTime, kNoTime, 1000}).operations[0].bound,
                   products / 1000);
  EXPECT_DOUBLE_EQ(bound(GGML_TYPE_Q8_0, decode(), {kNoTime, 1000, kNoTime, kNoTime}).operations[0].bound,
                   products / 1000);
  // 34 bytes for 32 codes.
  EXPECT_DOUBLE_EQ(bound(GGML_TYPE_Q8_0, decode(), {1000, kNoTime, kNoTime, kNoTime}).operations[0].bound,
                   products / 32 * 34 / 1000);
}

TEST(Bound, ReadingAndMultiplyingGoOnAtOnce) {
  const double bytes = (kLayerWeights + kHeadWeights) * 4, products = kLayerWeights + kHeadWeights;
  EXPECT_DOUBLE_EQ(bound(GGML_TYPE_F32, decode(), {1000, kNoTime, 1000, kNoTime}).operations[0].bound, bytes / 1000);
  EXPECT_DOUBLE_EQ(bound(GGML_TYPE_F32, decode(), {1000, kNoTime, 100, kNoTime}).operations[0].bound, products / 100);
}

}  // namespace
}  // namespace a2sf
