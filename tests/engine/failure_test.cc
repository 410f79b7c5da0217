// Sequences that fail, alone and for good: models whose finite weights overflow, hooks, feeds without a session.
#include <a2sf/hook.h>
#include <a2sf/session.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "support/tiny_model.h"

namespace a2sf {
namespace {

using testing::HasSubstr;

struct Overwrite {
  const char* tensor;
  std::size_t first, count;
  float value;
};

std::shared_ptr<const Model> spoiled(const TinyModel& sizes, const Overwrite& overwrite,
                                     const std::string& device = "cpu") {
  const std::string path = write_tiny_model(sizes, temporary_path("spoiled.gguf"));
  overwrite_floats(path, overwrite.tensor, overwrite.first, overwrite.count, overwrite.value);
  auto model = Model::load(path, {.threads = 2, .device = device, .isa = {}});
  std::filesystem::remove(path);
  return model.value();
}

Session spoiled_session(const std::shared_ptr<const Model>& model, const std::string& spec) {
  return Session::create(model, {.policy = parse_policy(spec).value()}).value();
}

constexpr std::array<std::int32_t, 40> kFortyTokens = {1, 2, 3, 4, 6, 7, 8, 9};

// Weights that are finite, and keys that are not.
const Overwrite kHugeNorm = {"blk.1.attn_norm.weight", 0, 64, 3e38F};

class Overflow : public testing::TestWithParam<const char*> {};

TEST_P(Overflow, IsAnErrorThatSaysWhereAndStays) {
  for (const std::string device : {"cpu", "reference"}) {
    if (device == "reference" && std::string(GetParam()).starts_with("shared-budget")) continue;
    Session session = spoiled_session(spoiled({}, kHugeNorm, device), GetParam());
    EXPECT_EQ(session.failure(), nullptr);
    const Status fed = session.feed(kFortyTokens);
    ASSERT_FALSE(fed) << device;
    EXPECT_EQ(fed.error().kind, ErrorKind::bad_input);
    EXPECT_THAT(fed.error().message, HasSubstr("attention is not finite at position 0, layer 1, KV head"));
    ASSERT_NE(session.failure(), nullptr);
    EXPECT_EQ(session.failure()->message, fed.error().message);
    EXPECT_TRUE(session.logits().empty());
    EXPECT_THAT(session.feed(kFortyTokens).error().message, HasSubstr("failed before: attention is not finite"));
    EXPECT_NE(session.fork().value().failure(), nullptr);
    EXPECT_FALSE(session.resize({BudgetCount{8}}));
  }
}

// 15 and 255 fill their last tile of slots: a token that is not evicted would have none.
INSTANTIATE_TEST_SUITE_P(Policies, Overflow,
                         testing::Values("full", "a2sf:budget=15", "a2sf:budget=255", "a2sf:budget=15:block=8",
                                         "h2o:budget=15", "tova:budget=15", "local:budget=15", "ideal:budget=15",
                                         "a2sf:budget=15:block=prompt", "shared-budget:budget=15"),
                         [](const auto& spec) {
                           std::string name = spec.param;
                           for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
                           return name;
                         });

TEST(Overflow, OfTheLogitsIsAnErrorToo) {
  for (const std::string device : {"cpu", "reference"}) {
    Session session = spoiled_session(spoiled({}, {"output_norm.weight", 0, 64, 3e38F}, device), "a2sf:budget=8");
    ASSERT_TRUE(session.feed(std::span(kFortyTokens).first(3), WantLogits::none));
    const Status fed = session.feed(std::span(kFortyTokens).first(2));
    ASSERT_FALSE(fed);
    EXPECT_THAT(fed.error().message, HasSubstr("the logits at position 4 are not finite"));
  }
}

// OPT's older form multiplies the embedding itself: a token of large numbers ends the sequence that holds it.
TEST(Failure, ASequenceFailsAlone) {
  constexpr std::size_t kWidth = 64, kHugeToken = 5;
  const auto model = spoiled({.architecture = "opt", .tied = false, .norms_follow = true},
                             {"token_embd.weight", kHugeToken * kWidth, kWidth, 3e38F});
  const std::array<std::int32_t, 3> good = {1, 2, 3}, bad = {1, static_cast<std::int32_t>(kHugeToken), 3};
  Session alone = spoiled_session(model, "a2sf:budget=15"), first = spoiled_session(model, "a2sf:budget=15"),
          failing = spoiled_session(model, "full"), last = spoiled_session(model, "a2sf:budget=15");
  ASSERT_TRUE(alone.feed(good, WantLogits::all));
  const std::array feeds = {Feed{&first, good, WantLogits::all}, Feed{&failing, bad, WantLogits::all},
                            Feed{&last, good, WantLogits::all}};
  const Status stepped = Session::step(feeds);
  ASSERT_FALSE(stepped);
  EXPECT_THAT(stepped.error().message, HasSubstr("position 1"));
  EXPECT_NE(failing.failure(), nullptr);
  for (const Session* healthy : {&first, &last}) {
    EXPECT_EQ(healthy->failure(), nullptr);
    ASSERT_EQ(healthy->logits().size(), alone.logits().size());
    EXPECT_EQ(std::memcmp(healthy->logits().data(), alone.logits().data(), alone.logits().size_bytes()), 0);
  }
  EXPECT_TRUE(Session::step(std::array{Feed{&first, good}, Feed{&last, good}}));
}

TEST(Failure, AHookThatNamesAVictimThatIsNotThereEndsItsSequenceOnly) {
  struct WrongHook : Hook {
    void evict(HookLayer& layer) override { layer.head(0).evict(99); }
    std::unique_ptr<Hook> clone() const override { return std::make_unique<WrongHook>(); }
  };
  struct Wrong : HookFactory {
    std::string_view name() const override { return "wrong"; }
    std::unique_ptr<Hook> make(const HookShape&) const override { return std::make_unique<WrongHook>(); }
  };
  const std::string path = write_tiny_model({}, temporary_path("hook.gguf"));
  const auto model = Model::load(path).value();
  std::filesystem::remove(path);
  PolicySpec spec = parse_policy("a2sf:budget=3").value();
  Session healthy = Session::create(model, {.policy = spec}).value();
  spec.score = Hooked{std::make_shared<Wrong>(), {}};
  Session failing = Session::create(model, {.policy = spec}).value();
  const std::span tokens = std::span(kFortyTokens).first(4);
  const Status stepped = Session::step(std::array{Feed{&failing, tokens}, Feed{&healthy, tokens}});
  ASSERT_FALSE(stepped);
  EXPECT_THAT(stepped.error().message, HasSubstr("hook 'wrong' named a token that is not there"));
  EXPECT_EQ(healthy.failure(), nullptr);
  EXPECT_EQ(healthy.logits().size(), 128U);
}

TEST(Failure, AFeedWithoutASessionIsAnErrorThatChangesNothing) {
  const std::string path = write_tiny_model({}, temporary_path("null.gguf"));
  const auto model = Model::load(path).value();
  std::filesystem::remove(path);
  Session session = spoiled_session(model, "a2sf:budget=15"), moved = spoiled_session(model, "full");
  const Session taken = std::move(moved);
  for (Session* const none : {static_cast<Session*>(nullptr), &moved}) {
    const Status stepped = Session::step(std::array{Feed{&session, kFortyTokens}, Feed{none, kFortyTokens}});
    ASSERT_FALSE(stepped);
    EXPECT_THAT(stepped.error().message, HasSubstr("no session"));
    EXPECT_EQ(session.position(), 0);
    EXPECT_EQ(session.failure(), nullptr);
  }
}

// A step that cannot start leaves its sessions as they were, the logits of the step before included.
TEST(Failure, AStepThatCannotStartChangesNothing) {
  const std::string path = write_tiny_model({}, temporary_path("start.gguf"));
  const auto model = Model::load(path).value();
  std::filesystem::remove(path);
  Session first = spoiled_session(model, "full"), second = spoiled_session(model, "full");
  ASSERT_TRUE(first.feed(std::span(kFortyTokens).first(3)));
  const std::vector<float> logits(first.logits().begin(), first.logits().end());
  const std::array<std::int32_t, 1> outside = {128};
  ASSERT_FALSE(Session::step(std::array{Feed{&first, kFortyTokens, WantLogits::all}, Feed{&second, outside}}));
  EXPECT_EQ(first.position(), 3);
  EXPECT_THAT(first.logits(), testing::ElementsAreArray(logits));
}

}  // namespace
}  // namespace a2sf
