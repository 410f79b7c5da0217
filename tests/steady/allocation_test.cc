// A decoded token allocates nothing once its sequence is in a steady state. A binary of its own: it counts what the
// whole process allocates.
#include <a2sf/a2sf.h>

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <new>
#include <string>

#include "support/tiny_model.h"

namespace {

std::atomic<std::int64_t> allocations{0};

void* counted(std::size_t bytes, std::size_t alignment) {
  ++allocations;
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

INSTANTIATE_TEST_SUITE_P(Policies, SteadyState,
                         testing::Values("full", "a2sf:budget=64", "a2sf:budget=64:block=8", "tova:budget=33",
                                         "streaming:budget=40"),
                         [](const auto& policy) {
                           std::string name = policy.param;
                           for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
                           return name;
                         });

}  // namespace
}  // namespace a2sf
