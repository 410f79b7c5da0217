// A decoded token allocates nothing once its sequence is in a steady state, and a step that runs out of memory changes
// nothing. A binary of its own: it counts what the whole process allocates.
#include <a2sf/a2sf.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <new>
#include <string>
#include <vector>

#include "support/tiny_model.h"

namespace {

std::atomic<std::int64_t> allocations{0};
std::atomic<std::int64_t> allowed{-1};  // allocations until one of them fails; negative: none does

void* counted(std::size_t bytes, std::size_t alignment) {
  ++allocations;
  if (allowed >= 0 && allowed-- == 0) throw std::bad_alloc();
  void* data = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (data == nullptr) std::abort();
  return data;
}

}  // namespace

// Not inlined: the compiler would see `new` met by free().
[[gnu::noinline]] void* operator new(std::size_t bytes) { return counted(bytes, alignof(std::max_align_t)); }
[[gnu::noinline]] void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return counted(bytes, static_cast<std::size_t>(alignment));
}
[[gnu::noinline]] void operator delete(void* data) noexcept { std::free(data); }
[[gnu::noinline]] void operator delete(void* data, std::size_t) noexcept { std::free(data); }
[[gnu::noinline]] void operator delete(void* data, std::align_val_t) noexcept { std::free(data); }
[[gnu::noinline]] void operator delete(void* data, std::size_t, std::align_val_t) noexcept { std::free(data); }

namespace a2sf {
namespace {

class SteadyState : public testing::TestWithParam<const char*> {};

TEST_P(SteadyState, ADecodedTokenAllocatesNothing) {
  // One thread: each grows its buffers with the first work it gets, whenever that is. The sequence's token ids double
  // their memory at powers of two, and `full` grows at 513.
  constexpr std::size_t kBefore = 260, kCounted = 240;
  const std::string path = write_tiny_model({}, temporary_path("steady.gguf"));
  const auto model = Model::load(path, {.threads = 1, .isa = {}}).value();
  std::filesystem::remove(path);
  auto session = Session::create(model, {.policy = parse_policy(GetParam()).value()}).value();
  const std::int32_t token = 3;
  for (std::size_t i = 0; i < kBefore; ++i) ASSERT_TRUE(session.feed({&token, 1}));
  const std::int64_t before = allocations;
  for (std::size_t i = 0; i < kCounted; ++i) ASSERT_TRUE(session.feed({&token, 1}));
  EXPECT_EQ(allocations - before, 0);
}

TEST_P(SteadyState, ADecodedTokenOfABatchAllocatesNothing) {
  constexpr std::size_t kBefore = 260, kCounted = 240;
  const std::string path = write_tiny_model({}, temporary_path("batch.gguf"));
  const auto model = Model::load(path, {.threads = 1, .isa = {}}).value();
  std::filesystem::remove(path);
  auto first = Session::create(model, {.policy = parse_policy(GetParam()).value()}).value();
  auto second = Session::create(model, {.policy = parse_policy("a2sf:budget=20").value()}).value();
  const std::int32_t token = 3;
  const Feed feeds[] = {{.session = &first, .tokens = {&token, 1}, .keep_logits = true}, {&second, {&token, 1}}};
  Batch batch;
  for (std::size_t i = 0; i < kBefore; ++i) ASSERT_TRUE(batch.run(feeds));
  const std::int64_t before = allocations;
  for (std::size_t i = 0; i < kCounted; ++i) ASSERT_TRUE(batch.run(feeds));
  EXPECT_EQ(allocations - before, 0);
}

// The same of a step that a Batch has the results of: it starts with everything there, or not at all.
TEST_P(SteadyState, ABatchThatRunsOutOfMemoryIsAnErrorThatChangesNothing) {
  const std::vector<std::int32_t> tokens(50, 3);
  const std::string path = write_tiny_model({}, temporary_path("batch-memory.gguf"));
  const auto model = Model::load(path, {.threads = 2, .isa = {}}).value();
  std::filesystem::remove(path);
  auto first = Session::create(model, {.policy = parse_policy(GetParam()).value()}).value();
  auto second = Session::create(model, {.policy = parse_policy("a2sf:budget=20").value()}).value();
  const Feed feeds[] = {{.session = &first, .tokens = tokens, .keep_logits = true}, {&second, tokens, WantLogits::all}};
  Batch batch;
  int failures = 0;
  for (std::int64_t number = 0;; ++number) {
    allowed = number;
    const Status ran = batch.run(feeds);
    const bool all_succeeded = allowed.exchange(-1) >= 0;
    ASSERT_EQ(first.failure(), nullptr);
    ASSERT_EQ(second.failure(), nullptr);
    ASSERT_EQ(ran.has_value(), all_succeeded) << "allocation " << number;
    if (ran) break;
    EXPECT_EQ(ran.error().kind, ErrorKind::out_of_memory);
    ASSERT_EQ(first.position() + second.position(), 0);
    ++failures;
  }
  EXPECT_GT(failures, 10);
  EXPECT_TRUE(batch.status(0) && batch.status(1));
  EXPECT_EQ(batch.logits(1).size(), 50U * 128U);
  EXPECT_TRUE(std::equal(batch.logits(0).begin(), batch.logits(0).end(), first.logits().begin(), first.logits().end()));
}

// Each allocation of a sequence's first steps fails once, wherever it is made: in the caller or in a task of the pool.
TEST_P(SteadyState, AStepThatRunsOutOfMemoryIsAnErrorThatChangesNothing) {
  std::vector<std::int32_t> tokens(150);
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<std::int32_t>(i % 128);
  const std::string path = write_tiny_model({}, temporary_path("memory.gguf"));
  const auto session_of_its_own = [&] {
    const auto model = Model::load(path, {.threads = 2, .isa = {}}).value();
    auto session = Session::create(model, {.policy = parse_policy(GetParam()).value()}).value();
    session.record_evictions();
    return session;
  };
  Session session = session_of_its_own(), undisturbed = session_of_its_own();
  std::filesystem::remove(path);
  int failures = 0;
  for (std::size_t done = 0; done < tokens.size(); done += 50) {
    const Feed feed{&session, std::span(tokens).subspan(done, 50)};
    for (std::int64_t number = 0;; ++number) {
      allowed = number;
      const Status stepped = Session::step(std::span(&feed, 1));
      const bool all_succeeded = allowed.exchange(-1) >= 0;
      ASSERT_EQ(session.failure(), nullptr);
      if (stepped) {
        ASSERT_TRUE(all_succeeded) << "allocation " << number << " failed unnoticed";
        break;
      }
      EXPECT_EQ(stepped.error().kind, ErrorKind::out_of_memory);
      ASSERT_EQ(session.position(), static_cast<std::int64_t>(done));
      ++failures;
    }
  }
  EXPECT_GT(failures, 10);
  for (std::size_t done = 0; done < tokens.size(); done += 50) {
    const Feed feed{&undisturbed, std::span(tokens).subspan(done, 50)};
    ASSERT_TRUE(Session::step(std::span(&feed, 1)));
  }
  EXPECT_TRUE(std::equal(session.logits().begin(), session.logits().end(), undisturbed.logits().begin(),
                         undisturbed.logits().end()));
  EXPECT_EQ(session.evictions(1, 1).size(), undisturbed.evictions(1, 1).size());
}

// The end of a prompt makes another cache when the step is done: what fails there ends that sequence and no other.
TEST(OutOfMemory, AtTheEndOfAPromptEndsThatSequenceAlone) {
  const std::string path = write_tiny_model({}, temporary_path("prompt.gguf"));
  const auto model = Model::load(path, {.threads = 2, .isa = {}}).value();
  std::filesystem::remove(path);
  const std::vector<std::int32_t> tokens(50, 3);
  int alone = 0;
  for (std::int64_t number = 0;; ++number) {
    auto first = Session::create(model, {.policy = parse_policy("a2sf:budget=20:block=prompt").value()}).value();
    auto second = Session::create(model, {.policy = parse_policy("a2sf:budget=20").value()}).value();
    const Feed feeds[] = {{&first, tokens, WantLogits::last, true, true}, {&second, tokens}};
    Batch batch;
    allowed = number;
    const Status ran = batch.run(feeds);
    const bool all_succeeded = allowed.exchange(-1) >= 0;
    ASSERT_EQ(second.failure(), nullptr);
    if (!ran) {
      EXPECT_EQ(ran.error().kind, ErrorKind::out_of_memory);
      ASSERT_EQ(first.failure(), nullptr);
      ASSERT_EQ(first.position() + second.position(), 0) << "allocation " << number;
      continue;
    }
    ASSERT_EQ(batch.status(0).has_value(), all_succeeded) << "allocation " << number;
    EXPECT_EQ(batch.logits(1).size(), 128U);
    EXPECT_EQ(second.position(), 50);
    if (all_succeeded) break;
    ++alone;
    EXPECT_EQ(batch.status(0).error().kind, ErrorKind::out_of_memory);
    EXPECT_NE(first.failure(), nullptr);
    EXPECT_TRUE(batch.logits(0).empty());
  }
  EXPECT_GT(alone, 0);
}

// A failure that no memory is left to repeat in the session is one all the same, and its neighbour goes on.
TEST(OutOfMemory, WhileASequenceFailsLeavesItsNeighbourAlone) {
  constexpr std::size_t kWidth = 64, kHugeToken = 5;
  const std::string path =
      write_tiny_model({.architecture = "opt", .tied = false, .norms_follow = true}, temporary_path("failing.gguf"));
  overwrite_floats(path, "token_embd.weight", kHugeToken * kWidth, kWidth, 3e38F);
  const auto model = Model::load(path, {.threads = 1, .isa = {}}).value();
  std::filesystem::remove(path);
  const std::int32_t bad = kHugeToken, good = 3;
  auto first = Session::create(model, {.policy = parse_policy("full").value()}).value();
  auto second = Session::create(model, {.policy = parse_policy("full").value()}).value();
  const std::int32_t both[] = {good, good};
  ASSERT_TRUE(Session::step(std::array{Feed{&first, both}, Feed{&second, both}}));  // the device's buffers are there
  int unrepeated = 0;
  for (std::int64_t number = 0;; ++number) {
    auto failing = Session::create(model, {.policy = parse_policy("full").value()}).value();
    auto healthy = Session::create(model, {.policy = parse_policy("a2sf:budget=20").value()}).value();
    const Feed feeds[] = {{&failing, {&bad, 1}}, {&healthy, {&good, 1}}};
    Batch batch;
    allowed = number;
    const Status ran = batch.run(feeds);
    const bool all_succeeded = allowed.exchange(-1) >= 0;
    if (!ran) continue;
    ASSERT_FALSE(batch.status(0));
    ASSERT_NE(failing.failure(), nullptr);
    EXPECT_EQ(healthy.failure() == nullptr, batch.status(1).has_value());
    if (batch.status(0).error().kind != ErrorKind::bad_input) continue;  // the device had no memory to say who failed
    EXPECT_TRUE(batch.status(1));
    EXPECT_EQ(batch.logits(1).size(), 128U);
    if (all_succeeded) break;
    ++unrepeated;
    EXPECT_EQ(failing.failure()->kind, ErrorKind::out_of_memory);
  }
  EXPECT_EQ(unrepeated, 1);
}

INSTANTIATE_TEST_SUITE_P(Policies, SteadyState,
                         testing::Values("full", "a2sf:budget=64", "a2sf:budget=64:block=8", "tova:budget=33",
                                         "streaming:budget=40", "ideal:budget=20", "a2sf:budget=20:block=prompt",
                                         "a2sf:budget=64:layers=1", "a2sf:power=1.5:value-weight=on:budget=64:sink=1",
                                         "a2sf:budget=64:cold=32"),
                         [](const auto& policy) {
                           std::string name = policy.param;
                           for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
                           return name;
                         });

}  // namespace
}  // namespace a2sf
