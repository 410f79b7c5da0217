// Sequences on the GPU: forks, resizes, steps of unlike sequences, long runs. Skipped where there is no GPU.
#include <a2sf/a2sf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>

#include "kernels/backend.h"
#include "support/tiny_model.h"

namespace a2sf {
namespace {

using testing::HasSubstr;
using Tokens = std::vector<std::int32_t>;

Tokens some_tokens(std::size_t count) {
  Tokens tokens;
  for (std::size_t i = 0; i < count; ++i) tokens.push_back(static_cast<std::int32_t>(3 + i * i * 7 % 90));
  return tokens;
}

class CudaSession : public testing::Test {
 protected:
  void SetUp() override {
    if (auto backend = make_cuda_backend(); !backend) GTEST_SKIP() << backend.error().message;
    gpu_ = load("cuda");
    reference_ = load("reference");
  }

  static std::shared_ptr<const Model> load(const std::string& device) {
    const std::string path = write_tiny_model({}, temporary_path("cuda.gguf"));
    auto model = Model::load(path, {.threads = 1, .device = device, .isa = {}}).value();
    std::filesystem::remove(path);
    return model;
  }
  static Session session_of(const std::shared_ptr<const Model>& model, const std::string& spec,
                            KvType type = KvType::f32) {
    return Session::create(model, {.policy = parse_policy(spec).value(), .kv_type = type}).value();
  }

  // Both hold the same tokens and predict the same.
  static void expect_same(const Session& gpu, const Session& expected) {
    for (int layer = 0; layer < 2; ++layer) {
      for (int head = 0; head < 2; ++head) ASSERT_EQ(gpu.retained(layer, head), expected.retained(layer, head));
    }
    ASSERT_EQ(gpu.logits().size(), expected.logits().size());
    for (std::size_t i = 0; i < gpu.logits().size(); ++i) ASSERT_NEAR(gpu.logits()[i], expected.logits()[i], 1e-4);
  }

  std::shared_ptr<const Model> gpu_, reference_;
};

TEST_F(CudaSession, ResizesAsTheReferenceDoes) {
  for (const char* spec : {"a2sf:budget=20", "a2sf:budget=20:block=prompt", "local:budget=20:sink=2", "full",
                           "a2sf:budget=20:sink=1:value-weight=on"}) {
    SCOPED_TRACE(spec);
    Session gpu = session_of(gpu_, spec), expected = session_of(reference_, spec);
    const Tokens tokens = some_tokens(80);
    for (Session* session : {&gpu, &expected}) {
      session->record_evictions();
      ASSERT_TRUE(session->feed(std::span(tokens).first(40), WantLogits::last, true));
      for (const char* budget : {"8", "300", "12"}) {
        ASSERT_TRUE(session->resize(parse_budget(budget).value()));
        ASSERT_TRUE(session->feed(std::span(tokens).subspan(40, 13)));
      }
    }
    expect_same(gpu, expected);
    EXPECT_EQ(gpu.kv_bytes(), expected.kv_bytes());
    const auto ours = gpu.evictions(1, 1), theirs = expected.evictions(1, 1);
    ASSERT_EQ(ours.size(), theirs.size());
  }
}

TEST_F(CudaSession, AForkGoesOnAsItsOriginDoes) {
  for (const char* spec : {"a2sf:budget=20", "full", "a2sf:budget=20:sink=1:value-weight=on"}) {
    SCOPED_TRACE(spec);
    const Tokens tokens = some_tokens(60);
    Session origin = session_of(gpu_, spec);
    ASSERT_TRUE(origin.feed(std::span(tokens).first(40)));
    Session fork = origin.fork().value();
    ASSERT_TRUE(fork.feed(std::span(tokens).first(9)));  // the origin does not see it
    fork = origin.fork().value();
    ASSERT_TRUE(origin.feed(std::span(tokens).subspan(40)));
    ASSERT_TRUE(fork.feed(std::span(tokens).subspan(40)));
    EXPECT_TRUE(std::equal(origin.logits().begin(), origin.logits().end(), fork.logits().begin()));
    EXPECT_EQ(origin.retained(1, 0), fork.retained(1, 0));
  }
}

TEST_F(CudaSession, WhoSharesAStepDoesNotMatterToTheByte) {
  const std::vector<std::pair<const char*, KvType>> kinds = {{"a2sf:budget=20", KvType::f16},
                                                             {"full", KvType::f32},
                                                             {"h2o:budget=9:block=4", KvType::f16},
                                                             {"ideal:budget=12", KvType::f32},
                                                             {"a2sf:budget=15:block=prompt", KvType::f16}};
  const Tokens tokens = some_tokens(60);
  std::vector<Session> alone, together;
  for (const auto& [spec, type] : kinds) {
    alone.push_back(session_of(gpu_, spec, type));
    together.push_back(session_of(gpu_, spec, type));
  }
  for (std::size_t first = 0; first < 40; first += 10) {
    std::vector<Feed> feeds;
    for (std::size_t i = 0; i < kinds.size(); ++i) {
      const auto part = std::span(tokens).subspan(first + i, 10);
      feeds.push_back({&together[i], part, WantLogits::last});
      ASSERT_TRUE(Session::step(std::array{Feed{&alone[i], part, WantLogits::last}}));
    }
    ASSERT_TRUE(Session::step(feeds));
    for (std::size_t i = 0; i < kinds.size(); ++i) {
      EXPECT_TRUE(std::equal(alone[i].logits().begin(), alone[i].logits().end(), together[i].logits().begin()))
          << kinds[i].first;
    }
  }
}

TEST_F(CudaSession, TenThousandTokensDoNotDrift) {
  Session gpu = session_of(gpu_, "a2sf:budget=24"), expected = session_of(reference_, "a2sf:budget=24");
  const Tokens tokens = some_tokens(10000);
  for (std::size_t first = 0; first < tokens.size(); first += 1000) {
    ASSERT_TRUE(gpu.feed(std::span(tokens).subspan(first, 1000)));
    ASSERT_TRUE(expected.feed(std::span(tokens).subspan(first, 1000)));
  }
  EXPECT_EQ(gpu.kv_bytes(), expected.kv_bytes());
  // A near tie may have been decided otherwise; what follows from that is forgotten again.
  const auto ours = gpu.retained(1, 1), theirs = expected.retained(1, 1);
  std::vector<std::int32_t> common;
  std::set_intersection(ours.begin(), ours.end(), theirs.begin(), theirs.end(), std::back_inserter(common));
  EXPECT_EQ(ours.size(), theirs.size());
  EXPECT_GE(common.size(), 20U);
  for (const float score : gpu.scores(1, 1)) EXPECT_TRUE(std::isfinite(score));
}

TEST_F(CudaSession, WhatTheDeviceDoesNotHaveIsRefusedInOneLine) {
  for (const auto& [spec, line] : {std::pair{"shared-budget:budget=9", "device 'cuda' has no hooks"},
                                   {"a2sf:budget=9:cold=all", "device 'cuda' has no cold tier"}}) {
    const auto refused = Session::create(gpu_, {.policy = parse_policy(spec).value()});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().message, line);
  }
}

}  // namespace
}  // namespace a2sf
