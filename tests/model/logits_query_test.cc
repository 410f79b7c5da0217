// What is asked of rows of logits instead of the rows.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "kernels/logits.h"
#include "model/model_parts.h"
#include "support/devices.h"
#include "support/tiny_model.h"

namespace a2sf {
namespace {

constexpr int kVocabulary = 128;

TEST(LogitsQuery, FindsTheLargestAndOfEqualsTheLowerId) {
  const std::vector<float> logits = {1, 5, 2, 5, 5, -3};
  std::vector<TokenProbability> largest(4);
  answer({.row = 0, .largest = largest}, logits);
  const double log_sum = log_sum_exp(logits);
  EXPECT_EQ((std::vector{largest[0].token, largest[1].token, largest[2].token, largest[3].token}),
            (std::vector{1, 3, 4, 2}));
  EXPECT_DOUBLE_EQ(largest[0].log_probability, 5 - log_sum);
  EXPECT_DOUBLE_EQ(largest[3].log_probability, 2 - log_sum);
}

TEST(LogitsQuery, HasNoMoreTokensThanTheVocabulary) {
  const std::vector<float> logits = {1, 2};
  std::vector<TokenProbability> largest(5);
  answer({.row = 0, .largest = largest}, logits);
  EXPECT_EQ((std::vector{largest[0].token, largest[1].token, largest[2].token, largest[4].token}),
            (std::vector{1, 0, -1, -1}));
}

TEST(LogitsQuery, GivesTheProbabilitiesOfTokens) {
  const std::vector<float> logits = {0, std::log(2.0F), std::log(5.0F)};
  const std::vector<std::int32_t> tokens = {2, 0, 2};
  std::vector<double> found(3);
  answer({.row = 0, .tokens = tokens, .log_probabilities = found}, logits);
  EXPECT_NEAR(found[0], std::log(5.0 / 8), 1e-6);
  EXPECT_NEAR(found[1], std::log(1.0 / 8), 1e-6);
  EXPECT_EQ(found[2], found[0]);
}

// One sequence of a model of its own, on every device, with a softcap or without.
class StepLogits : public testing::TestWithParam<test::Device> {
 protected:
  static std::shared_ptr<const Model> model_of(const test::Device& device) {
    const std::string path = write_tiny_model({}, temporary_path("queries.gguf"));
    auto model = Model::load(path, device.options).value();
    std::filesystem::remove(path);
    return model;
  }

  static Status run(const Model& model, std::span<const LogitsQuery> wanted) {
    const Architecture& a = model.parts().weights.architecture;
    const auto store = model.parts().backend->make_sequence(
        {a.layers, a.heads, a.kv_heads, a.head_dim, KvType::f16, a.attention_scale, a.windows},
        resolve_all(parse_policy("full").value(), a.windows, a.kv_heads, 0).value());
    EXPECT_TRUE(store->make_room(static_cast<std::int64_t>(kTokens.size()), false));
    const Span span{store.get(), 0, 0, static_cast<int>(kTokens.size()), 0, false, false, kTokens};
    Status outcome;
    const Status started = model.parts().forward.run({kTokens, std::span(&span, 1), wanted}, std::span(&outcome, 1));
    return started ? outcome : started;
  }

  inline static const std::vector<std::int32_t> kTokens = {5, 17, 99, 3, 42};
};

TEST_P(StepLogits, AreWhatIsComputedFromTheWholeRows) {
  const auto model = model_of(GetParam());
  std::vector<float> rows(3 * kVocabulary);
  const std::vector<LogitsQuery> whole = {{.row = 1, .logits = rows.data()},
                                          {.row = 2, .logits = rows.data() + kVocabulary},
                                          {.row = 4, .logits = rows.data() + 2 * kVocabulary}};
  ASSERT_TRUE(run(*model, whole));

  std::vector<float> last(kVocabulary);
  std::vector<TokenProbability> greedy(1), expected_greedy(1), several(7), expected_several(7);
  const std::vector<std::int32_t> tokens = {0, 127};
  std::vector<double> probabilities(2), expected_probabilities(2);
  const std::vector<LogitsQuery> queries = {{.row = 1, .largest = greedy},
                                            {.row = 2, .tokens = tokens, .log_probabilities = probabilities},
                                            {.row = 4, .logits = last.data(), .largest = several}};
  ASSERT_TRUE(run(*model, queries));
  const auto row = [&](std::size_t i) { return std::span(rows).subspan(i * kVocabulary, kVocabulary); };
  answer({.row = 1, .largest = expected_greedy}, row(0));
  answer({.row = 2, .tokens = tokens, .log_probabilities = expected_probabilities}, row(1));
  answer({.row = 4, .largest = expected_several}, row(2));
  EXPECT_EQ(greedy[0].token, std::max_element(row(0).begin(), row(0).end()) - row(0).begin());
  const double error = GetParam().name == "reference" ? 0 : 1e-6;  // of log_sum_exp in vectors
  EXPECT_NEAR(greedy[0].log_probability, expected_greedy[0].log_probability, error);
  for (std::size_t i = 0; i < tokens.size(); ++i) EXPECT_NEAR(probabilities[i], expected_probabilities[i], error);
  EXPECT_EQ(std::memcmp(last.data(), row(2).data(), row(2).size_bytes()), 0);
  for (std::size_t i = 0; i < several.size(); ++i) {
    EXPECT_EQ(several[i].token, expected_several[i].token);
    EXPECT_NEAR(several[i].log_probability, expected_several[i].log_probability, error);
  }
}

TEST_P(StepLogits, ARowThatIsNotFiniteFailsWhateverIsAskedOfIt) {
  const std::string path = write_tiny_model({}, temporary_path("infinite.gguf"));
  overwrite_floats(path, "output_norm.weight", 0, 64, 3e38F);
  const auto model = Model::load(path, GetParam().options).value();
  std::filesystem::remove(path);
  std::vector<TokenProbability> greedy(1);
  const LogitsQuery query{.row = 4, .largest = greedy};
  const Status ran = run(*model, {&query, 1});
  ASSERT_FALSE(ran);
  EXPECT_NE(ran.error().message.find("the logits at position 4 are not finite"), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Devices, StepLogits, testing::ValuesIn(test::all_devices()),
                         [](const auto& each) { return each.param.name; });

// What a device without hooks, f32, options of scores and a cold tier refuses.
TEST(Capabilities, ASequenceThatNeedsMoreIsRefusedInOneLine) {
  const Capabilities device{.name = "small",
                            .kv_types = {KvType::f16},
                            .modes = {RetentionMode::all, RetentionMode::score},
                            .whole_prompt = false,
                            .power = false,
                            .value_weight = false,
                            .token_classes = false,
                            .threshold = false,
                            .cold_tier = false,
                            .most_rows = 8,
                            .exact_bytes = false};
  const auto refusal = [&](const char* spec, KvType type = KvType::f16) {
    const auto resolved = resolve_all(parse_policy(spec).value(), std::vector{0, 0}, 1, 0).value();
    const Status checked = device.check(resolved.retention, type);
    return checked ? std::string() : checked.error().message;
  };
  EXPECT_EQ(refusal("a2sf:budget=9"), "");
  EXPECT_EQ(refusal("a2sf:budget=9", KvType::f32), "device 'small' has no caches of f32");
  EXPECT_EQ(refusal("shared-budget:budget=9"), "device 'small' has no hooks");
  EXPECT_EQ(refusal("ideal:budget=9"), "device 'small' has no oracles");
  EXPECT_EQ(refusal("a2sf:budget=9:block=prompt"), "device 'small' has no block = prompt");
  EXPECT_EQ(refusal("a2sf:budget=9:power=1.5"), "device 'small' has no power of scores");
  EXPECT_EQ(refusal("a2sf:budget=9:sink=1:value-weight=on"), "device 'small' has no value weights");
  EXPECT_EQ(refusal("a2sf:budget=9:cold=all"), "device 'small' has no cold tier");
}

}  // namespace
}  // namespace a2sf
