// How many threads a model computes with, and what happens where there are too few.
#include <a2sf/model.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "support/tiny_model.h"

namespace a2sf {
namespace {

class Threads : public testing::Test {
 protected:
  void SetUp() override { path_ = write_tiny_model({}, temporary_path("threads.gguf")); }
  void TearDown() override { std::filesystem::remove(path_); }
  std::string path_;
};

TEST_F(Threads, ByDefaultAreThoseThatTheProcessMayRunOn) {
  cpu_set_t all, one;
  ASSERT_EQ(sched_getaffinity(0, sizeof all, &all), 0);
  CPU_ZERO(&one);
  for (int core = 0; CPU_COUNT(&one) == 0; ++core) {
    if (CPU_ISSET(core, &all)) CPU_SET(core, &one);
  }
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  const auto model = Model::load(path_);
  ASSERT_EQ(sched_setaffinity(0, sizeof all, &all), 0);
  ASSERT_TRUE(model);
  EXPECT_EQ((*model)->threads(), 1);
}

// Ends the process: 0 and the error on stderr if loading fails.
[[noreturn]] void load_with_too_many_threads(const std::string& path) {
  const rlimit little{std::size_t{1} << 30, std::size_t{1} << 30};  // of address space, most of it for stacks
  if (setrlimit(RLIMIT_AS, &little) != 0) std::_Exit(1);
  const auto model = Model::load(path, {.threads = 1024, .isa = {}});
  if (model) std::_Exit(2);
  std::fputs(model.error().message.c_str(), stderr);
  std::_Exit(0);
}

using ThreadsDeathTest = Threads;
TEST_F(ThreadsDeathTest, ThatCannotBeStartedAreAnErrorOfLoading) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers need their address space";
#endif
  EXPECT_EXIT(load_with_too_many_threads(path_), testing::ExitedWithCode(0),
              "cannot start 1024 threads: .*; use fewer");
}

}  // namespace
}  // namespace a2sf
