// What a Batch hands out of a step, feed by feed, and what its sessions keep.
#include <a2sf/batch.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/logits.h"
#include "support/tiny_model.h"

namespace a2sf {
namespace {

using testing::HasSubstr;

constexpr std::size_t kBatchVocabulary = 128;
constexpr std::array<std::int32_t, 6> kTokens = {1, 2, 3, 4, 6, 7};

std::shared_ptr<const Model> batch_model(int threads = 2) {
  const std::string path = write_tiny_model({}, temporary_path("batch.gguf"));
  auto model = Model::load(path, {.threads = threads, .isa = {}}).value();
  std::filesystem::remove(path);
  return model;
}

Session session_of(const std::shared_ptr<const Model>& model, const std::string& spec = "a2sf:budget=15") {
  return Session::create(model, {.policy = parse_policy(spec).value()}).value();
}

bool same_bytes(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

TEST(Batch, RowsAreThoseOfEachSequenceAloneAndOnlyWhoAsksKeepsThem) {
  const auto model = batch_model();
  Session alone = session_of(model), all = session_of(model), last = session_of(model), none = session_of(model);
  ASSERT_TRUE(alone.feed(kTokens, WantLogits::all));
  ASSERT_TRUE(all.feed(kTokens));
  all = session_of(model);
  Batch batch;
  const std::array feeds = {Feed{.session = &all, .tokens = kTokens, .logits = WantLogits::all, .keep_logits = true},
                            Feed{&none, kTokens, WantLogits::none}, Feed{&last, kTokens}};
  ASSERT_TRUE(batch.run(feeds));
  for (std::size_t i = 0; i < feeds.size(); ++i) EXPECT_TRUE(batch.status(i));
  EXPECT_TRUE(same_bytes(batch.logits(0), alone.logits()));
  EXPECT_TRUE(batch.logits(1).empty());
  EXPECT_TRUE(same_bytes(batch.logits(2), alone.logits().last(kBatchVocabulary)));
  EXPECT_TRUE(same_bytes(all.logits(), alone.logits()));
  EXPECT_TRUE(last.logits().empty());

  // The sessions' own logits are a copy: another step leaves them.
  const std::vector<float> kept(all.logits().begin(), all.logits().end());
  ASSERT_TRUE(batch.run(std::array{Feed{&last, kTokens, WantLogits::all}}));
  EXPECT_TRUE(same_bytes(all.logits(), kept));
  EXPECT_TRUE(last.logits().empty());
  ASSERT_TRUE(alone.feed(kTokens, WantLogits::all));
  EXPECT_TRUE(same_bytes(batch.logits(0), alone.logits()));
}

// A step that did not ask leaves no rows of an earlier one behind.
TEST(Batch, LogitsOfASessionAreNeverThoseOfAnEarlierStep) {
  const auto model = batch_model();
  Session session = session_of(model);
  ASSERT_TRUE(session.feed(kTokens));
  Batch batch;
  ASSERT_TRUE(batch.run(std::array{Feed{&session, kTokens}}));
  EXPECT_TRUE(session.logits().empty());
  ASSERT_TRUE(session.feed(kTokens));
  EXPECT_EQ(session.logits().size(), kBatchVocabulary);
}

TEST(Batch, ViewsOutliveTheirSessionsAndMoves) {
  const auto model = batch_model();
  Session alone = session_of(model);
  ASSERT_TRUE(alone.feed(kTokens));
  std::optional<Session> session = session_of(model);
  Batch first;
  ASSERT_TRUE(first.run(std::array{Feed{&*session, kTokens}}));
  const std::span<const float> logits = first.logits(0);
  session.reset();
  Batch second = std::move(first);
  EXPECT_TRUE(same_bytes(logits, alone.logits()));
  EXPECT_TRUE(second.status(0));
  Session other = session_of(model);
  EXPECT_TRUE(first.run(std::array{Feed{&other, kTokens}}));  // NOLINT(bugprone-use-after-move): as a new one
  EXPECT_TRUE(same_bytes(first.logits(0), alone.logits()));
}

// The last rows of a feed, some of which are wanted whole, some for a token, some for both.
TEST(Batch, LogProbabilitiesOfNextTokensAreThoseOfTheWholeRows) {
  const auto model = batch_model();
  Session alone = session_of(model);
  ASSERT_TRUE(alone.feed(kTokens, WantLogits::all));
  const auto expected = [&](std::size_t row, std::int32_t token) {
    const auto logits = alone.logits().subspan(row * kBatchVocabulary, kBatchVocabulary);
    return logits[static_cast<std::size_t>(token)] - log_sum_exp(logits);
  };
  const std::array<std::int32_t, 3> next = {9, 0, 127};
  for (const WantLogits logits : {WantLogits::none, WantLogits::last, WantLogits::all}) {
    Session first = session_of(model), neighbour = session_of(model);
    Batch batch;
    const std::array feeds = {Feed{&neighbour, kTokens},
                              Feed{.session = &first, .tokens = kTokens, .logits = logits, .next = next}};
    ASSERT_TRUE(batch.run(feeds));
    EXPECT_TRUE(batch.log_probabilities(0).empty());
    EXPECT_TRUE(same_bytes(batch.logits(0), alone.logits().last(kBatchVocabulary)));
    const auto found = batch.log_probabilities(1);
    ASSERT_EQ(found.size(), next.size());
    for (std::size_t j = 0; j < next.size(); ++j) EXPECT_NEAR(found[j], expected(3 + j, next[j]), 1e-6) << j;
    const std::size_t rows = logits == WantLogits::none ? 0 : logits == WantLogits::last ? 1 : kTokens.size();
    EXPECT_TRUE(same_bytes(batch.logits(1), alone.logits().last(rows * kBatchVocabulary)));
  }
}

TEST(Batch, LogProbabilitiesHaveTheSameBytesWhateverTheNeighboursAndThreads) {
  const auto found = [](int threads, std::size_t neighbours) {
    const auto model = batch_model(threads);
    std::vector<Session> sessions;
    for (std::size_t i = 0; i <= neighbours; ++i) sessions.push_back(session_of(model));
    const std::array<std::int32_t, 3> next = {9, 0, 127};
    std::vector<Feed> feeds;
    for (Session& session : sessions) feeds.push_back({.session = &session, .tokens = kTokens, .next = next});
    Batch batch;
    EXPECT_TRUE(batch.run(feeds));
    const auto last = batch.log_probabilities(neighbours);
    return std::vector<double>(last.begin(), last.end());
  };
  const auto alone = found(1, 0);
  ASSERT_EQ(alone.size(), 3U);
  for (const int threads : {1, 2, 3}) {
    for (const std::size_t neighbours : {0U, 1U, 6U}) EXPECT_EQ(found(threads, neighbours), alone) << threads;
  }
}

TEST(Batch, NextTokensThatCannotBeAreErrors) {
  const auto model = batch_model();
  Session session = session_of(model);
  const std::vector<std::int32_t> many(kTokens.size() + 1, 1), outside = {static_cast<std::int32_t>(kBatchVocabulary)};
  Batch batch;
  EXPECT_THAT(batch.run(std::array{Feed{.session = &session, .tokens = kTokens, .next = many}}).error().message,
              HasSubstr("7 tokens follow"));
  EXPECT_THAT(batch.run(std::array{Feed{.session = &session, .tokens = kTokens, .next = outside}}).error().message,
              HasSubstr("token 128"));
  const Feed good{.session = &session, .tokens = kTokens, .next = std::span(many).first(1)};
  EXPECT_THAT(Session::step({&good, 1}).error().message, HasSubstr("Batch"));
  EXPECT_EQ(session.position(), 0);
}

// OPT's older form multiplies the embedding itself: a token of large numbers ends the sequence that holds it.
TEST(Batch, ASequenceFailsAloneAndItsStatusSaysWhy) {
  constexpr std::size_t kWidth = 64, kHugeToken = 5;
  const std::string path = write_tiny_model({.architecture = "opt", .tied = false, .norms_follow = true},
                                            temporary_path("batch-spoiled.gguf"));
  overwrite_floats(path, "token_embd.weight", kHugeToken * kWidth, kWidth, 3e38F);
  const auto model = Model::load(path, {.threads = 2, .isa = {}}).value();
  std::filesystem::remove(path);
  const std::array<std::int32_t, 2> bad = {1, static_cast<std::int32_t>(kHugeToken)};
  Session alone = session_of(model), first = session_of(model), failing = session_of(model), last = session_of(model);
  ASSERT_TRUE(alone.feed(kTokens));
  Batch batch;
  ASSERT_TRUE(batch.run(std::array{
      Feed{&first, kTokens}, Feed{.session = &failing, .tokens = bad, .logits = WantLogits::all, .keep_logits = true},
      Feed{&last, kTokens}}));
  ASSERT_FALSE(batch.status(1));
  EXPECT_THAT(batch.status(1).error().message, HasSubstr("position 1"));
  EXPECT_EQ(failing.failure()->message, batch.status(1).error().message);
  EXPECT_TRUE(batch.logits(1).empty());
  EXPECT_TRUE(failing.logits().empty());
  for (const std::size_t healthy : {0, 2}) {
    EXPECT_TRUE(batch.status(healthy));
    EXPECT_TRUE(same_bytes(batch.logits(healthy), alone.logits()));
  }
}

TEST(Batch, AStepThatCannotStartIsAnErrorThatChangesNothing) {
  const auto model = batch_model(), other = batch_model();
  Session session = session_of(model), foreign = session_of(other), moved = session_of(model);
  const Session taken = std::move(moved);
  ASSERT_TRUE(session.feed(kTokens));
  const std::vector<float> logits(session.logits().begin(), session.logits().end());
  const std::vector<std::int32_t> outside = {static_cast<std::int32_t>(kBatchVocabulary)}, many(4097, 1);
  const Feed good{&session, kTokens};
  const std::vector<std::vector<Feed>> wrong = {
      {good, {nullptr, kTokens}},  {good, {&moved, kTokens}}, {{nullptr, kTokens}},  {good, good},
      {good, {&foreign, kTokens}}, {{&session, {}}},          {{&session, outside}}, {{&session, many}}};
  Batch batch;
  for (const auto& feeds : wrong) {
    const Status ran = batch.run(feeds);
    ASSERT_FALSE(ran);
    EXPECT_EQ(ran.error().kind, ErrorKind::bad_input);
    EXPECT_EQ(ran.error().message, Session::step(feeds).error().message);
  }
  EXPECT_EQ(session.position(), static_cast<std::int64_t>(kTokens.size()));
  EXPECT_TRUE(same_bytes(session.logits(), logits));
  EXPECT_TRUE(batch.run({}));
  EXPECT_TRUE(batch.run(std::array{good}));
}

}  // namespace
}  // namespace a2sf
