// Sessions on tiny random models: what a policy promises, whatever the threads, chunks and neighbours.
#include <a2sf/hook.h>
#include <a2sf/profile.h>
#include <a2sf/session.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <string>

#include "support/tiny_model.h"

namespace a2sf {
namespace {

constexpr int kLayers = 2, kKvHeads = 2, kVocabulary = 128;  // of TinyModel
constexpr std::size_t kSlotBytes = 2 * 16 * 2 + 4 + 4;       // f16 key and value of 16 dimensions, score, position

using Logits = std::vector<float>;
using Tokens = std::vector<std::int32_t>;

// Every model of the file, loaded once.
std::shared_ptr<const Model> session_model(int threads = 1, const std::string& device = "cpu",
                                           ggml_type type = GGML_TYPE_F32) {
  static std::map<std::string, std::shared_ptr<const Model>> models;
  const std::string name = std::string("session-") + ggml_type_name(type) + ".gguf";
  auto& model = models[name + device + std::to_string(threads)];
  if (model == nullptr) {
    TinyModel sizes;
    sizes.type = type;
    const std::string path = write_tiny_model(sizes, temporary_path(name));
    ModelOptions options;
    options.threads = threads;
    options.device = device;
    model = Model::load(path, options).value();
    std::filesystem::remove(path);
  }
  return model;
}

Tokens random_tokens(std::size_t count, unsigned seed = 7) {
  std::mt19937 random(seed);
  Tokens tokens(count);
  for (auto& token : tokens) token = static_cast<std::int32_t>(random() % kVocabulary);
  return tokens;
}

SessionOptions options_of(const std::string& spec, KvType type = KvType::f16, std::int64_t sequence_tokens = 0) {
  return {parse_policy(spec).value(), type, sequence_tokens};
}

Session session_of(const std::string& spec, std::shared_ptr<const Model> model = session_model(),
                   KvType type = KvType::f16) {
  return Session::create(std::move(model), options_of(spec, type)).value();
}

// The logits of every token, fed `chunk` tokens a call.
Logits feed_in(Session& session, std::span<const std::int32_t> tokens, std::size_t chunk) {
  Logits all;
  for (std::size_t done = 0; done < tokens.size(); done += chunk) {
    const auto part = tokens.subspan(done, std::min(chunk, tokens.size() - done));
    const Status fed = session.feed(part, WantLogits::all);
    EXPECT_TRUE(fed) << fed.error().message;
    all.insert(all.end(), session.logits().begin(), session.logits().end());
  }
  return all;
}

Logits feed_all(Session& session, const Tokens& tokens) { return feed_in(session, tokens, tokens.size()); }

bool equal_bytes(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

float largest_difference(const Logits& a, const Logits& b) {
  EXPECT_EQ(a.size(), b.size());
  float largest = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
}

float largest(const Logits& a) {
  float result = 0;
  for (const float x : a) result = std::max(result, std::abs(x));
  return result;
}

template <class Check>
void for_each_head(Check check) {
  for (int layer = 0; layer < kLayers; ++layer) {
    for (int h = 0; h < kKvHeads; ++h) check(layer, h);
  }
}

std::int64_t held(const Session& session, int layer, int kv_head) {
  return static_cast<std::int64_t>(session.retained(layer, kv_head).size());
}

bool holds(const Session& session, int layer, int kv_head, std::int32_t position) {
  const auto positions = session.retained(layer, kv_head);
  return std::binary_search(positions.begin(), positions.end(), position);
}

void expect_same_cache(const Session& a, const Session& b) {
  for_each_head([&](int layer, int h) {
    EXPECT_EQ(a.retained(layer, h), b.retained(layer, h));
    EXPECT_TRUE(equal_bytes(a.scores(layer, h), b.scores(layer, h)));
  });
}

// Names of specs become names of tests.
std::string test_name(const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; }, '_');
  return name;
}

// --- The bytes of a row depend on nothing but its sequence ---

class BatchInvariance : public testing::TestWithParam<std::string> {};

TEST_P(BatchInvariance, BytesDoNotDependOnThreads) {
  const Tokens tokens = random_tokens(70);
  Session one = session_of(GetParam(), session_model(1));
  const Logits expected = feed_all(one, tokens);
  for (const int threads : {2, 3}) {
    Session other = session_of(GetParam(), session_model(threads));
    EXPECT_TRUE(equal_bytes(feed_all(other, tokens), expected)) << threads << " threads";
    expect_same_cache(one, other);
  }
}

TEST_P(BatchInvariance, BytesDoNotDependOnChunks) {
  const Tokens tokens = random_tokens(90);
  Session whole = session_of(GetParam(), session_model(1));
  const Logits expected = feed_all(whole, tokens);
  for (const std::size_t chunk : {std::size_t{1}, std::size_t{7}}) {
    Session other = session_of(GetParam(), session_model(1));
    EXPECT_TRUE(equal_bytes(feed_in(other, tokens, chunk), expected)) << "chunks of " << chunk;
    expect_same_cache(whole, other);
  }
}

TEST_P(BatchInvariance, BytesDoNotDependOnTheOtherSequencesOfAStep) {
  const Tokens tokens = random_tokens(60), others = random_tokens(60, 8);
  Session alone = session_of(GetParam());
  const Logits expected = feed_all(alone, tokens);
  Session shared = session_of(GetParam()), full = session_of("full"), h2o = session_of("h2o:budget=9");
  Logits logits;
  for (std::size_t done = 0; done < tokens.size(); done += 10) {
    const std::span part = std::span(tokens).subspan(done, 10);
    const std::array feeds = {Feed{&full, std::span(others).subspan(done, 10), WantLogits::none},
                              Feed{&shared, part, WantLogits::all},
                              Feed{&h2o, std::span(others).subspan(done, 1), WantLogits::last}};
    ASSERT_TRUE(Session::step(feeds));
    logits.insert(logits.end(), shared.logits().begin(), shared.logits().end());
    EXPECT_TRUE(full.logits().empty());
    EXPECT_EQ(h2o.logits().size(), std::size_t{kVocabulary});
  }
  EXPECT_TRUE(equal_bytes(logits, expected));
  expect_same_cache(alone, shared);
}

INSTANTIATE_TEST_SUITE_P(Policies, BatchInvariance,
                         testing::Values("full", "local:budget=16", "streaming:budget=16", "h2o:budget=16",
                                         "tova:budget=16", "a2sf:budget=16", "a2sf:budget=16:block=5",
                                         "ideal:budget=16", "shared-budget:budget=16",
                                         "a2sf:budget=16:alpha=0:cold=20:block=5"),
                         test_name);

// A single row over more than 512 slots is shared out over the threads piece by piece.
TEST(LongRow, BytesAreThoseOfAChunkWhateverTheThreads) {
  const Tokens tokens = random_tokens(522);
  for (const std::string spec : {"full", "a2sf:budget=514"}) {
    Session whole = session_of(spec, session_model(1));
    ASSERT_TRUE(whole.feed(tokens));
    for (const int threads : {1, 3}) {
      Session decoding = session_of(spec, session_model(threads));
      ASSERT_TRUE(decoding.feed(std::span(tokens).first(510), WantLogits::none));
      for (std::size_t i = 510; i < tokens.size(); ++i) ASSERT_TRUE(decoding.feed(std::span(tokens).subspan(i, 1)));
      EXPECT_TRUE(equal_bytes(decoding.logits(), whole.logits())) << spec << ", " << threads << " threads";
      expect_same_cache(decoding, whole);
    }
  }
}

// --- Budgets ---

class Bounded : public testing::TestWithParam<std::string> {};

TEST_P(Bounded, NeverHoldsMoreThanTheBudgetAndItsMemoryIsConstant) {
  Session session = session_of(GetParam() + ":budget=12");
  const std::size_t bytes = kLayers * kKvHeads * 16 * kSlotBytes;
  for (const std::int32_t token : random_tokens(50)) {
    ASSERT_TRUE(session.feed(std::span(&token, 1)));
    for_each_head(
        [&](int layer, int h) { EXPECT_EQ(held(session, layer, h), std::min<std::int64_t>(12, session.position())); });
    EXPECT_EQ(session.kv_bytes(), bytes);
  }
  EXPECT_EQ(session.peak_kv_bytes(), bytes);
}

TEST_P(Bounded, ABudgetAsLongAsTheTextGivesTheLogitsOfFull) {
  const Tokens tokens = random_tokens(80);
  Session full = session_of("full"), bounded = session_of(GetParam() + ":budget=80");
  const Logits expected = feed_all(full, tokens);
  EXPECT_LE(largest_difference(feed_all(bounded, tokens), expected), 1e-4F * largest(expected));
  for_each_head([&](int layer, int h) { EXPECT_EQ(held(bounded, layer, h), 80); });
}

INSTANTIATE_TEST_SUITE_P(Policies, Bounded,
                         testing::Values("local", "streaming", "h2o", "tova", "a2sf", "a2sf:alpha=0.5:recent=0"),
                         test_name);

TEST(Ideal, ABudgetAsLongAsTheTextIsFull) {
  const Tokens tokens = random_tokens(80);
  Session full = session_of("full"), ideal = session_of("ideal:budget=80"), tight = session_of("ideal:budget=8");
  const Logits expected = feed_all(full, tokens);
  EXPECT_TRUE(equal_bytes(feed_all(ideal, tokens), expected));
  EXPECT_GT(largest_difference(feed_all(tight, tokens), expected), 1e-4F * largest(expected));
  EXPECT_EQ(held(tight, 0, 0), 80);
}

TEST(Retained, SinksRecentAndPinnedTokensStay) {
  Session session = session_of("a2sf:budget=14:sink=3:recent=5:pin=6");
  for (const std::int32_t token : random_tokens(60)) {
    ASSERT_TRUE(session.feed(std::span(&token, 1)));
    const auto now = static_cast<std::int32_t>(session.position() - 1);
    for_each_head([&](int layer, int h) {
      for (std::int32_t position = 0; position <= now; ++position) {
        const bool must_stay = position < 6 || position > now - 5;
        EXPECT_TRUE(!must_stay || holds(session, layer, h, position)) << position << " after " << now;
      }
    });
  }
}

TEST(Retained, LocalKeepsTheNewestAndStreamingTheFirstFourToo) {
  Session local = session_of("local:budget=8"), streaming = session_of("streaming:budget=8");
  ASSERT_TRUE(local.feed(random_tokens(40)) && streaming.feed(random_tokens(40)));
  for_each_head([&](int layer, int h) {
    EXPECT_EQ(local.retained(layer, h), (Tokens{32, 33, 34, 35, 36, 37, 38, 39}));
    EXPECT_EQ(streaming.retained(layer, h), (Tokens{0, 1, 2, 3, 36, 37, 38, 39}));
  });
}

TEST(Retained, EveryTokenIsEitherHeldOrInTheRecordOfEvictions) {
  Session session = session_of("a2sf:budget=10");
  session.record_evictions();
  ASSERT_TRUE(session.feed(random_tokens(70)));
  for_each_head([&](int layer, int h) {
    Tokens all = session.retained(layer, h);
    for (const Eviction& eviction : session.evictions(layer, h)) {
      EXPECT_LE(eviction.position, eviction.step);
      all.push_back(eviction.position);
    }
    std::sort(all.begin(), all.end());
    Tokens expected(70);
    std::iota(expected.begin(), expected.end(), 0);
    EXPECT_EQ(all, expected);
    EXPECT_TRUE(session.evictions(layer, h).empty());
  });
}

TEST(Block, HoldsLessThanABlockMoreThanTheBudget) {
  constexpr std::int64_t budget = 10, block = 6;
  Session session = session_of("a2sf:budget=10:block=6");
  std::int64_t most = 0;
  for (const std::int32_t token : random_tokens(60)) {
    ASSERT_TRUE(session.feed(std::span(&token, 1)));
    const std::int64_t tokens = session.position();
    const std::int64_t expected = tokens < budget + block ? tokens : budget + (tokens - budget) % block;
    for_each_head([&](int layer, int h) { EXPECT_EQ(held(session, layer, h), expected); });
    most = std::max(most, held(session, 0, 0));
  }
  EXPECT_EQ(most, budget + block - 1);
}

TEST(BlockPrompt, FullAttentionInThePromptAndOneEvictionAtItsEnd) {
  const Tokens prompt = random_tokens(150), second = random_tokens(90, 9);
  Session session = session_of("a2sf:budget=12:block=prompt"), full = session_of("full");
  const std::size_t bounded = kLayers * kKvHeads * 16 * kSlotBytes;
  ASSERT_TRUE(session.feed(prompt, WantLogits::all, true));
  const Logits logits(session.logits().begin(), session.logits().end());
  const Logits expected = feed_all(full, prompt);
  EXPECT_LE(largest_difference(logits, expected), 1e-4F * largest(expected));
  const auto expect_bounded = [&] {
    for_each_head([&](int layer, int h) { EXPECT_EQ(held(session, layer, h), 12); });
    EXPECT_EQ(session.kv_bytes(), bounded);
  };
  expect_bounded();
  EXPECT_GT(session.peak_kv_bytes(), bounded);
  for (const std::int32_t token : random_tokens(20, 3)) {
    ASSERT_TRUE(session.feed(std::span(&token, 1)));
    expect_bounded();
  }
  ASSERT_TRUE(session.feed(second, WantLogits::last, true));
  expect_bounded();
  EXPECT_EQ(session.position(), 150 + 20 + 90);
}

TEST(BlockPrompt, BytesDoNotDependOnTheChunksOfAPrompt) {
  const Tokens prompt = random_tokens(100), answer = random_tokens(20, 3);
  Session whole = session_of("a2sf:budget=12:block=prompt"), pieces = session_of("a2sf:budget=12:block=prompt");
  ASSERT_TRUE(whole.feed(prompt, WantLogits::last, true));
  for (std::size_t done = 0; done < prompt.size(); done += 20) {
    const Feed feed{&pieces, std::span(prompt).subspan(done, 20), WantLogits::last, true, done + 20 == prompt.size()};
    ASSERT_TRUE(Session::step(std::span(&feed, 1)));
  }
  EXPECT_TRUE(equal_bytes(whole.logits(), pieces.logits()));
  expect_same_cache(whole, pieces);
  EXPECT_TRUE(equal_bytes(feed_all(whole, answer), feed_in(pieces, answer, 1)));
}

TEST(Budgets, ARatioIsOfTheWholeSequence) {
  Session session = Session::create(session_model(), options_of("a2sf:budget=25%", KvType::f16, 90)).value();
  ASSERT_TRUE(session.feed(random_tokens(90)));
  for_each_head([&](int layer, int h) {
    EXPECT_EQ(session.rule(layer, h).budget, 23);
    EXPECT_EQ(held(session, layer, h), 23);
  });
  const auto refused = Session::create(session_model(), options_of("a2sf:budget=25%"));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::bad_input);
}

TEST(Budgets, ATableGivesEveryHeadItsOwnAndMemoryForJustThat) {
  SessionOptions options = options_of("a2sf");
  options.policy.budget.budget = BudgetTable{{{4, 20}, {9, 300}}};
  Session session = Session::create(session_model(), options).value();
  ASSERT_TRUE(session.feed(random_tokens(70)));
  EXPECT_EQ(session.kv_bytes(), (16 + 32 + 16 + 304) * kSlotBytes);
  EXPECT_EQ(held(session, 0, 0), 4);
  EXPECT_EQ(held(session, 0, 1), 20);
  EXPECT_EQ(held(session, 1, 0), 9);
  EXPECT_EQ(held(session, 1, 1), 70);
  options.policy.budget.budget = BudgetTable{{{4, 20}}};
  EXPECT_FALSE(Session::create(session_model(), options));
}

std::shared_ptr<const Profile> profile_of(const char* json) {
  return std::make_shared<const Profile>(parse_profile(json).value());
}

TEST(Budgets, AProfileSharesOutExactlyTheBudgetOfAllHeads) {
  SessionOptions options = options_of("a2sf:budget=20");
  const auto profile = profile_of(R"({"shares": [[1, 5], [2, 0.1]]})");
  ASSERT_TRUE(share_by(options.policy, profile));
  Session session = Session::create(session_model(), options).value();
  ASSERT_TRUE(session.feed(random_tokens(80)));
  EXPECT_EQ(held(session, 0, 0), 10);
  EXPECT_EQ(held(session, 0, 1), 49);
  EXPECT_EQ(held(session, 1, 0), 20);
  EXPECT_EQ(held(session, 1, 1), 1);
  EXPECT_EQ(session.kv_bytes(), (16 + 64 + 32 + 16) * kSlotBytes);
  ASSERT_TRUE(session.resize({BudgetShares{BudgetCount{10}, profile}}));
  EXPECT_EQ(held(session, 0, 1), 24) << "a new budget is shared out too";
  ASSERT_TRUE(session.resize({BudgetTable{{{8, 8}, {8, 6}}}}));
  EXPECT_EQ(held(session, 1, 1), 1) << "what has gone is gone";
  EXPECT_EQ(session.rule(1, 1).budget, 6);
}

TEST(Budgets, AProfileOfEqualSharesChangesNoByte) {
  const Tokens tokens = random_tokens(80);
  for (const char* policy : {"a2sf:budget=20", "h2o:budget=20:block=8", "a2sf:budget=20:block=prompt",
                             "local:budget=20", "shared-budget:budget=20", "ideal:budget=20"}) {
    SessionOptions options = options_of(policy);
    Session plain = Session::create(session_model(), options).value();
    ASSERT_TRUE(share_by(options.policy, profile_of(R"({"shares": [[0.3, 0.3], [0.3, 0.3]]})")));
    Session shared = Session::create(session_model(), options).value();
    EXPECT_TRUE(equal_bytes(feed_all(plain, tokens), feed_all(shared, tokens))) << policy;
    expect_same_cache(plain, shared);
  }
}

TEST(Budgets, TheAlphasOfAProfileAreThoseOfItsHeads) {
  const Tokens tokens = random_tokens(80);
  SessionOptions options = options_of("a2sf:budget=20:alpha=0.5");
  Session half = Session::create(session_model(), options).value();
  options.policy.score = Accumulate{};
  ASSERT_TRUE(
      share_by(options.policy, profile_of(R"({"shares": [[1, 1], [1, 1]], "alphas": [[0.5, 0.5], [0.5, 0.9]]})")));
  Session measured = Session::create(session_model(), options).value();
  ASSERT_TRUE(half.feed(tokens));
  ASSERT_TRUE(measured.feed(tokens));
  EXPECT_EQ(half.scores(0, 1), measured.scores(0, 1));
  EXPECT_NE(half.scores(1, 1), measured.scores(1, 1));
}

// --- Fork and resize ---

class Fork : public testing::TestWithParam<std::string> {};

TEST_P(Fork, ContinuesWithTheBytesOfTheOriginal) {
  const Tokens start = random_tokens(40), rest = random_tokens(40, 2), other = random_tokens(20, 3);
  Session original = session_of(GetParam());
  ASSERT_TRUE(original.feed(start));
  Session copy = original.fork().value(), strays = original.fork().value();
  EXPECT_TRUE(equal_bytes(copy.logits(), original.logits()));
  expect_same_cache(copy, original);
  ASSERT_TRUE(strays.feed(other));  // has a cache of its own
  const Logits expected = feed_all(original, rest);
  EXPECT_TRUE(equal_bytes(feed_all(copy, rest), expected));
  expect_same_cache(copy, original);
  EXPECT_EQ(copy.position(), original.position());
}

INSTANTIATE_TEST_SUITE_P(Policies, Fork,
                         testing::Values("full", "a2sf:budget=16", "h2o:budget=16:block=7",
                                         "a2sf:budget=16:block=prompt", "ideal:budget=16", "shared-budget:budget=16",
                                         "a2sf:budget=16:alpha=0:cold=20:block=5"),
                         test_name);

TEST(Resize, DownKeepsTheHighestScoresAndContinues) {
  Session session = session_of("a2sf:budget=30");
  ASSERT_TRUE(session.feed(random_tokens(60)));
  std::map<std::pair<int, int>, std::vector<std::pair<float, std::int32_t>>> before;
  for_each_head([&](int layer, int h) {
    const auto positions = session.retained(layer, h);
    const auto scores = session.scores(layer, h);
    for (std::size_t i = 0; i < positions.size(); ++i) before[{layer, h}].emplace_back(scores[i], positions[i]);
  });
  const std::size_t bytes = session.kv_bytes();
  session.record_evictions();
  ASSERT_TRUE(session.resize({BudgetCount{12}}));
  EXPECT_LT(session.kv_bytes(), bytes);
  for_each_head([&](int layer, int h) {
    EXPECT_EQ(session.rule(layer, h).budget, 12);
    auto tokens = before[{layer, h}];
    std::erase_if(tokens, [](const auto& token) { return token.second > 59 - 6; });
    std::sort(tokens.rbegin(), tokens.rend());
    Tokens expected = {54, 55, 56, 57, 58, 59};
    for (std::size_t i = 0; i < 6; ++i) expected.push_back(tokens[i].second);
    std::sort(expected.begin(), expected.end());
    EXPECT_EQ(session.retained(layer, h), expected);
    EXPECT_EQ(session.evictions(layer, h).size(), 18U);
  });
  ASSERT_TRUE(session.feed(random_tokens(30, 2)));
  for_each_head([&](int layer, int h) { EXPECT_EQ(held(session, layer, h), 12); });
}

TEST(Resize, UpKeepsEverythingAndFillsTheNewBudget) {
  Session session = session_of("a2sf:budget=10");
  ASSERT_TRUE(session.feed(random_tokens(40)));
  const Tokens kept = session.retained(1, 1);
  const auto scores = session.scores(1, 1);
  ASSERT_TRUE(session.resize({BudgetCount{40}}));
  EXPECT_EQ(session.retained(1, 1), kept);
  EXPECT_EQ(session.scores(1, 1), scores);
  ASSERT_TRUE(session.feed(random_tokens(25, 2)));
  for_each_head([&](int layer, int h) { EXPECT_EQ(held(session, layer, h), 35); });
  ASSERT_TRUE(session.feed(random_tokens(25, 3)));
  for_each_head([&](int layer, int h) { EXPECT_EQ(held(session, layer, h), 40); });
}

TEST(Resize, WhatASmallerBudgetEvictsGoesIntoTheColdTier) {
  Session session = session_of("a2sf:budget=30:alpha=0:cold=all:block=5");
  ASSERT_TRUE(session.feed(random_tokens(30)));
  const std::size_t before = session.cold_bytes();
  ASSERT_TRUE(session.resize({BudgetCount{12}}));
  EXPECT_GT(session.cold_bytes(), before);
  const Tokens kept = session.retained(1, 1);
  ASSERT_TRUE(session.feed(random_tokens(40, 2)));
  const Tokens later = session.retained(1, 1);
  EXPECT_TRUE(std::any_of(later.begin(), later.end(), [&](std::int32_t position) {
    return position < 30 && std::find(kept.begin(), kept.end(), position) == kept.end();
  })) << "nothing came back";
}

TEST(Resize, ABudgetThatDoesNotFitLeavesTheSessionAsItWas) {
  const Tokens rest = random_tokens(20, 2);
  Session session = session_of("a2sf:budget=20:sink=4:recent=10", session_model(), KvType::f32);
  ASSERT_TRUE(session.feed(random_tokens(40)));
  session.record_evictions();
  Session copy = session.fork().value();
  EXPECT_FALSE(session.resize({BudgetCount{13}}));
  EXPECT_FALSE(session.resize({BudgetCount{std::int64_t{1} << 50}}));
  EXPECT_FALSE(session.resize({BudgetRatio{0.5}}));
  EXPECT_FALSE(session.resize({BudgetRatio{std::nan("")}}));
  EXPECT_TRUE(session.evictions(0, 0).empty());
  expect_same_cache(session, copy);
  EXPECT_TRUE(equal_bytes(feed_all(session, rest), feed_all(copy, rest)));
}

TEST(Resize, IdealGoesOnHoldingEverything) {
  Session session = session_of("ideal:budget=20");
  ASSERT_TRUE(session.feed(random_tokens(40)));
  ASSERT_TRUE(session.resize({BudgetCount{8}}));
  EXPECT_EQ(held(session, 0, 0), 40);
}

// --- Hooks ---

TEST(SharedBudgetHook, ChoosesOtherVictimsWithinTheSumOfTheBudgets) {
  Session shared = session_of("shared-budget:budget=12"), plain = session_of("a2sf:budget=12");
  shared.record_evictions();
  plain.record_evictions();
  for (const std::int32_t token : random_tokens(80)) {
    ASSERT_TRUE(shared.feed(std::span(&token, 1)) && plain.feed(std::span(&token, 1)));
    for (int layer = 0; layer < kLayers; ++layer) {
      EXPECT_LE(held(shared, layer, 0) + held(shared, layer, 1), 24);
      EXPECT_LE(std::max(held(shared, layer, 0), held(shared, layer, 1)), 24);
      EXPECT_GE(std::min(held(shared, layer, 0), held(shared, layer, 1)), 1);
    }
  }
  bool differs = false;
  for_each_head([&](int layer, int h) {
    const auto a = shared.evictions(layer, h), b = plain.evictions(layer, h);
    differs = differs || !std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const Eviction& x, const Eviction& y) {
                return x.position == y.position && x.step == y.step;
              });
  });
  EXPECT_TRUE(differs);
}

// --- Against the reference device ---

TEST(ReferenceDevice, GivesTheSameLogitsAndRetainedTokens) {
  const Tokens tokens = random_tokens(60);
  for (const std::string spec : {"full", "a2sf:budget=16", "ideal:budget=16"}) {
    Session cpu = session_of(spec, session_model(2), KvType::f32),
            reference = session_of(spec, session_model(1, "reference"), KvType::f32);
    EXPECT_LE(largest_difference(feed_all(cpu, tokens), feed_all(reference, tokens)), 1e-3F) << spec;
    for_each_head([&](int layer, int h) { EXPECT_EQ(cpu.retained(layer, h), reference.retained(layer, h)); });
  }
}

// Mean KL(p || q) of the rows' distributions, in nats.
double mean_kl(const Logits& p, const Logits& q) {
  const std::size_t rows = p.size() / kVocabulary;
  double total = 0;
  const auto log_sum = [](std::span<const float> x) {
    double sum = 0;
    for (const float logit : x) sum += std::exp(static_cast<double>(logit));
    return std::log(sum);
  };
  for (std::size_t row = 0; row < rows; ++row) {
    const auto a = std::span(p).subspan(row * kVocabulary, kVocabulary),
               b = std::span(q).subspan(row * kVocabulary, kVocabulary);
    const double za = log_sum(a), zb = log_sum(b);
    for (std::size_t i = 0; i < kVocabulary; ++i) total += std::exp(a[i] - za) * ((a[i] - za) - (b[i] - zb));
  }
  return total / static_cast<double>(rows);
}

class WeightType : public testing::TestWithParam<ggml_type> {};

TEST_P(WeightType, IsCloseToTheReferenceDevice) {
  const Tokens tokens = random_tokens(24);
  Session cpu = session_of("full", session_model(2, "cpu", GetParam())),
          reference = session_of("full", session_model(1, "reference", GetParam()));
  const Logits ours = feed_all(cpu, tokens), expected = feed_all(reference, tokens);
  EXPECT_LT(mean_kl(expected, ours), GetParam() == GGML_TYPE_F32 ? 1e-6 : 5e-3);
  EXPECT_TRUE(std::all_of(ours.begin(), ours.end(), [](float x) { return std::isfinite(x); }));
}

INSTANTIATE_TEST_SUITE_P(Types, WeightType,
                         testing::Values(GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0,
                                         GGML_TYPE_Q4_1, GGML_TYPE_Q4_K, GGML_TYPE_Q6_K, GGML_TYPE_Q5_0),
                         [](const auto& type) { return std::string(ggml_type_name(type.param)); });

// --- Bad input ---

TEST(BadInput, ATokenOutsideTheVocabularyChangesNothing) {
  Session session = session_of("a2sf:budget=8");
  ASSERT_TRUE(session.feed(random_tokens(10)));
  for (const std::int32_t token : {-1, kVocabulary, std::numeric_limits<std::int32_t>::max()}) {
    const Status fed = session.feed(Tokens{1, token});
    ASSERT_FALSE(fed);
    EXPECT_EQ(fed.error().kind, ErrorKind::bad_input);
    EXPECT_NE(fed.error().message.find(std::to_string(token)), std::string::npos) << fed.error().message;
  }
  EXPECT_EQ(session.position(), 10);
}

TEST(BadInput, NoTokens) {
  Session session = session_of("full");
  EXPECT_FALSE(session.feed({}));
  const Feed feed{&session, {}};
  EXPECT_FALSE(Session::step(std::span(&feed, 1)));
}

TEST(BadInput, ASessionTwiceInAStep) {
  Session session = session_of("full");
  const Tokens tokens = random_tokens(300);
  const std::array feeds = {Feed{&session, tokens}, Feed{&session, tokens}};
  EXPECT_FALSE(Session::step(feeds));
  EXPECT_EQ(session.position(), 0);
}

TEST(BadInput, SessionsOfDifferentModelsInAStep) {
  Session a = session_of("full", session_model(1)), b = session_of("full", session_model(2));
  const Tokens tokens = random_tokens(3);
  const std::array feeds = {Feed{&a, tokens}, Feed{&b, tokens}};
  EXPECT_FALSE(Session::step(feeds));
  EXPECT_EQ(a.position(), 0);
}

TEST(BadInput, ABudgetSmallerThanWhatMustStayNamesBoth) {
  const auto session = Session::create(session_model(), options_of("a2sf:budget=9:sink=4:recent=6"));
  ASSERT_FALSE(session);
  for (const char* number : {"budget 9", "sink 4", "6 recent"}) {
    EXPECT_NE(session.error().message.find(number), std::string::npos) << session.error().message;
  }
}

TEST(BadInput, AHugeBudgetIsAnError) {
  for (const std::int64_t budget : {std::int64_t{1} << 50, std::numeric_limits<std::int64_t>::max()}) {
    for (const char* policy : {"a2sf", "local", "streaming", "h2o", "tova", "shared-budget"}) {
      SessionOptions options = options_of(policy);
      options.policy.budget.budget = BudgetCount{budget};
      EXPECT_FALSE(Session::create(session_model(), options)) << policy << " " << budget;
    }
  }
  SessionOptions options = options_of("a2sf");
  options.policy.schedule = EvictEvery{std::numeric_limits<std::int64_t>::max()};
  EXPECT_FALSE(Session::create(session_model(), options));
}

TEST(BadInput, AnUnknownInstructionSetIsAnError) {
  const std::string path = write_tiny_model({}, temporary_path("isa.gguf"));
  ::setenv("A2SF_ISA", "foo", 1);
  const auto forced = Model::load(path);
  ::unsetenv("A2SF_ISA");
  ModelOptions options;
  options.isa = "foo";
  const auto asked = Model::load(path, options);
  std::filesystem::remove(path);
  for (const auto* model : {&forced, &asked}) {
    ASSERT_FALSE(*model);
    EXPECT_NE(model->error().message.find("foo"), std::string::npos) << model->error().message;
  }
}

TEST(Cancel, KeepsWhatIsDone) {
  Session session = session_of("a2sf:budget=8");
  const Status fed =
      session.feed(random_tokens(200), WantLogits::last, false, [](std::size_t done) { return done < 128; });
  ASSERT_FALSE(fed);
  EXPECT_EQ(fed.error().kind, ErrorKind::cancelled);
  EXPECT_EQ(session.position(), 128);
  EXPECT_TRUE(session.feed(random_tokens(5)));
}

}  // namespace
}  // namespace a2sf
