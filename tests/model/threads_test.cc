// How many threads a model computes with, and what happens where there are too few.
#include <a2sf/model.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "support/one_core.h"
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
  const test::OneCore one;
  EXPECT_EQ(Model::load(path_).value()->threads(), 1);
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
#ifdef A2SF_SANITIZED
  GTEST_SKIP() << "sanitizers need their address space";
#endif
  EXPECT_EXIT(load_with_too_many_threads(path_), testing::ExitedWithCode(0),
              "cannot start 1024 threads: .*; use fewer");
}

}  // namespace
}  // namespace a2sf
