// Every architecture against transformers: tests/model/fixtures/make.py made the models and computed what they predict.
#include <a2sf/hook.h>
#include <a2sf/session.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "support/devices.h"
#include "support/tiny_model.h"

namespace a2sf {
namespace {

using testing::HasSubstr;
using Json = nlohmann::json;
using Tokens = std::vector<std::int32_t>;

const std::filesystem::path kFixtures = std::filesystem::path(A2SF_TEST_FOLDER) / "model" / "fixtures";

std::shared_ptr<const Model> load(const std::string& path, const ModelOptions& options = {.threads = 1, .isa = {}}) {
  auto model = Model::load(path, options);
  if (!model) throw std::runtime_error(model.error().message);
  return *model;
}

std::shared_ptr<const Model> fixture(const std::string& name, const test::Device& device) {
  return load((kFixtures / (name + ".gguf")).string(), device.options);
}

std::shared_ptr<const Model> tiny(const TinyModel& sizes) {
  const std::string path = write_tiny_model(sizes, temporary_path("architecture.gguf"));
  auto model = load(path);
  std::filesystem::remove(path);
  return model;
}

Session session_of(std::shared_ptr<const Model> model, const std::string& spec, KvType type = KvType::f32) {
  return Session::create(std::move(model), {parse_policy(spec).value(), type, 0}).value();
}

Tokens some_tokens(std::size_t count) {
  Tokens tokens;
  for (std::size_t i = 0; i < count; ++i) tokens.push_back(static_cast<std::int32_t>(3 + i * i * 7 % 90));
  return tokens;
}

std::int32_t best(std::span<const float> logits) {
  return static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

std::string name_of_test(const std::string& text) {
  std::string name = text;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; }, '_');
  return name;
}

const Json& expected() {
  static const Json document = Json::parse(std::ifstream(kFixtures / "expected.json"));
  return document;
}

std::vector<std::string> fixture_names() {
  std::vector<std::string> names;
  for (const auto& [name, _] : expected().items()) names.push_back(name);
  return names;
}

class Fixture : public testing::TestWithParam<std::tuple<std::string, test::Device>> {};

TEST_P(Fixture, PredictsWhatTransformersDoes) {
  const auto& [name, device] = GetParam();
  const Json& wanted = expected()[name];
  Session session = session_of(fixture(name, device), "full");
  ASSERT_TRUE(session.feed(wanted["tokens"].get<Tokens>(), WantLogits::all));
  double largest = 0, difference = 0;
  std::size_t i = 0;
  for (const Json& row : wanted["logits"]) {
    for (const Json& logit : row) {
      largest = std::max(largest, std::abs(logit.get<double>()));
      difference = std::max(difference, std::abs(logit.get<double>() - static_cast<double>(session.logits()[i++])));
    }
  }
  EXPECT_EQ(i, session.logits().size());
  EXPECT_LE(difference, 1e-4 * largest);

  Tokens continuation;
  std::span<const float> last = session.logits().last(static_cast<std::size_t>(session.logits().size() / 24));
  for (std::size_t step = 0; step < wanted["continuation"].size(); ++step) {
    continuation.push_back(best(last));
    ASSERT_TRUE(session.feed(std::span(continuation).last(1)));
    last = session.logits();
  }
  EXPECT_EQ(continuation, wanted["continuation"].get<Tokens>());
}

INSTANTIATE_TEST_SUITE_P(, Fixture,
                         testing::Combine(testing::ValuesIn(fixture_names()), testing::ValuesIn(test::all_devices(1))),
                         [](const auto& each) {
                           return name_of_test(std::get<0>(each.param) + "_" + std::get<1>(each.param).name);
                         });

// --- Every policy on every architecture ---

class Matrix : public testing::TestWithParam<std::tuple<std::string, std::string, test::Device>> {};

TEST_P(Matrix, RunsWithinItsBudget) {
  const auto& [architecture, spec, device] = GetParam();
  const bool bounded = spec != "full" && spec != "ideal:budget=10";
  Session session = session_of(fixture(architecture, device), spec, KvType::f16);
  const Tokens tokens = some_tokens(50);
  ASSERT_TRUE(session.feed(std::span(tokens).first(30), WantLogits::none, true));
  for (std::size_t i = 30; i < tokens.size(); ++i) ASSERT_TRUE(session.feed(std::span(tokens).subspan(i, 1)));
  EXPECT_TRUE(std::all_of(session.logits().begin(), session.logits().end(), [](float x) { return std::isfinite(x); }));
  const std::size_t held = session.retained(1, 0).size();
  EXPECT_TRUE(bounded ? held < 10 + 4 : held == 50) << held;
  // A row's bytes depend on its sequence alone.
  Session again = session_of(fixture(architecture, device), spec, KvType::f16);
  ASSERT_TRUE(again.feed(std::span(tokens).first(30), WantLogits::none, true));
  ASSERT_TRUE(again.feed(std::span(tokens).subspan(30)));
  EXPECT_TRUE(std::equal(again.logits().begin(), again.logits().end(), session.logits().begin()));
}

std::string name_of_case(const testing::TestParamInfo<Matrix::ParamType>& each) {
  return name_of_test(std::get<0>(each.param) + "_" + std::get<1>(each.param) + "_" + std::get<2>(each.param).name);
}

const auto kArchitectures =
    testing::Values("llama", "qwen2", "qwen3", "gemma3", "phi3", "gpt2", "gptneox", "opt", "opt-350m");

INSTANTIATE_TEST_SUITE_P(, Matrix,
                         testing::Combine(kArchitectures,
                                          testing::Values("full", "local:budget=10", "streaming:budget=10",
                                                          "h2o:budget=10", "tova:budget=10", "a2sf:budget=10",
                                                          "a2sf:budget=10:block=4", "a2sf:budget=10:block=prompt",
                                                          "ideal:budget=10",
                                                          "a2sf:power=1.5:value-weight=on:budget=10:sink=1"),
                                          testing::ValuesIn(test::all_devices())),
                         name_of_case);

INSTANTIATE_TEST_SUITE_P(Hooks, Matrix,
                         testing::Combine(kArchitectures, testing::Values("shared-budget:budget=10"),
                                          testing::ValuesIn(test::host_devices())),
                         name_of_case);

// --- Sliding windows and budgets ---

TinyModel windowed() { return {.architecture = "gemma3", .layers = 6, .context = 128, .window = 12}; }

TEST(Windows, FullKeepsTheWindowInConstantMemory) {
  Session session = session_of(tiny(windowed()), "full");
  ASSERT_TRUE(session.feed(some_tokens(60)));
  const Tokens newest = {48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59};
  for (int layer = 0; layer < 5; ++layer) EXPECT_EQ(session.retained(layer, 0), newest);
  EXPECT_EQ(session.retained(5, 0).size(), 60U);
  EXPECT_EQ(session.rule(0, 0).budget, 12);
  // Two KV heads a layer: rings of 12 + 64 slots, whole tiles, and a chunk in the one layer without a window.
  EXPECT_EQ(session.kv_bytes(), 2 * (5 * 80 + 256) * std::size_t{2 * 16 * 4 + 8});
}

TEST(Windows, TheSmallerOfWindowAndBudgetCounts) {
  Session wide = session_of(tiny(windowed()), "a2sf:budget=20"), narrow = session_of(tiny(windowed()), "a2sf:budget=8");
  ASSERT_TRUE(wide.feed(some_tokens(60)) && narrow.feed(some_tokens(60)));
  EXPECT_EQ(wide.retained(0, 0).size(), 12U);
  EXPECT_EQ(wide.retained(5, 0).size(), 20U);
  EXPECT_EQ(narrow.retained(0, 0).size(), 8U);
  EXPECT_EQ(narrow.retained(5, 0).size(), 8U);
  EXPECT_GT(narrow.retained(0, 0).front(), 60 - 1 - 12);
  EXPECT_EQ(wide.rule(0, 0).recent, 6);
  EXPECT_EQ(wide.rule(5, 0).recent, 10);
}

TEST(Windows, AreNotRoundedUpByWhatMustStay) {
  Session session = session_of(tiny(windowed()), "a2sf:budget=40:sink=4:recent=30:pin=8");
  ASSERT_TRUE(session.feed(some_tokens(60)));
  EXPECT_EQ(session.retained(0, 0).front(), 48);
  EXPECT_EQ(session.retained(5, 0).front(), 0);
}

TEST(Windows, ABudgetAsLongAsTheTextIsFull) {
  const Tokens tokens = some_tokens(60);
  Session full = session_of(tiny(windowed()), "full");
  ASSERT_TRUE(full.feed(tokens, WantLogits::all));
  for (const char* spec : {"a2sf:budget=60", "local:budget=60", "ideal:budget=60", "shared-budget:budget=60"}) {
    Session session = session_of(tiny(windowed()), spec);
    ASSERT_TRUE(session.feed(tokens, WantLogits::all));
    float largest = 0, difference = 0;
    for (std::size_t i = 0; i < full.logits().size(); ++i) {
      largest = std::max(largest, std::abs(full.logits()[i]));
      difference = std::max(difference, std::abs(full.logits()[i] - session.logits()[i]));
    }
    EXPECT_LE(difference, 1e-4F * largest) << spec;
  }
}

// --- Learned positions ---

TEST(Positions, EndWithTheTrainedContext) {
  for (const char* architecture : {"gpt2", "opt"}) {
    Session session = session_of(tiny({.architecture = architecture, .kv_heads = 4, .context = 32}), "local:budget=8");
    ASSERT_TRUE(session.feed(some_tokens(32)));
    const Status refused = session.feed(some_tokens(1));
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().message, HasSubstr("positions for 32 tokens; the sequence would have 33"));
  }
}

// Beyond it other factors would hold, for the tokens that are in the cache too.
TEST(Positions, OfLongropeEndWithTheOriginalContext) {
  Session session = session_of(load((kFixtures / "phi3-longrope.gguf").string()), "a2sf:budget=8");
  ASSERT_TRUE(session.feed(some_tokens(40)));
  const Status refused = session.feed(some_tokens(1));
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message,
              HasSubstr("positions for 40 tokens (longrope within its original context; beyond it is not supported); "
                        "the sequence would have 41"));
}

}  // namespace
}  // namespace a2sf
