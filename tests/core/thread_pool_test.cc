#include "core/thread_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

}  // namespace
}  // namespace a2sf
