#include "core/thread_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <cstdlib>
#include <system_error>
#include <thread>

namespace a2sf {
namespace {

TEST(ThreadPool, RunsEveryTaskOnceInEveryRound) {
  for (const int threads : {1, 2, 7}) {  // more than most test machines have, so that workers come late
    ThreadPool pool(threads);
    for (int round = 0; round < 2000; ++round) {
      std::vector<int> runs(static_cast<std::size_t>(round % 13));  // plain: tasks must not overlap
      pool.run(static_cast<int>(runs.size()), [&](int task, int) { ++runs[static_cast<std::size_t>(task)]; });
      ASSERT_THAT(runs, testing::Each(1)) << threads << " threads, round " << round;
    }
  }
}

TEST(ThreadPool, NumbersWorkersBelowItsThreads) {
  ThreadPool pool(3);
  ASSERT_EQ(pool.threads(), 3);
  std::atomic<int> outside{0};
  pool.run(1000, [&](int, int worker) { outside += worker < 0 || worker >= 3; });
  EXPECT_EQ(outside, 0);
}

TEST(ThreadPool, WaitsForTasksThatOthersTook) {
  ThreadPool pool(2);
  std::atomic<int> done{0};
  pool.run(2, [&](int, int) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    ++done;
  });
  EXPECT_EQ(done, 2);
}

// Ends the process: 0 if a pool that is too large fails and leaves no thread behind.
[[noreturn]] void start_too_many_threads() {
  const rlimit little{std::size_t{1} << 30, std::size_t{1} << 30};  // of address space, most of it for stacks
  if (setrlimit(RLIMIT_AS, &little) != 0) std::_Exit(1);
  try {
    const ThreadPool pool(1024);
  } catch (const std::system_error&) {
    ThreadPool pool(2);  // there is room again
    std::atomic<int> done{0};
    pool.run(10, [&](int, int) { ++done; });
    std::_Exit(done == 10 ? 0 : 2);
  }
  std::_Exit(3);
}

TEST(ThreadPoolDeathTest, ThreadsThatCannotBeStartedAreAnExceptionAndTheOthersEnd) {
#ifdef A2SF_SANITIZED
  GTEST_SKIP() << "sanitizers need their address space";
#endif
  EXPECT_EXIT(start_too_many_threads(), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace a2sf
