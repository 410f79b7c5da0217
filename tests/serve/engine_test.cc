// Requests from several threads, while the engine computes.
#include "serve/engine.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "serve/tiny_server.h"

namespace a2sf::serve {
namespace {

class EngineTest : public TinyServer {};

TEST_F(EngineTest, RequestsOfSeveralThreadsEndOnceAndCancelledOnesMakeRoom) {
  constexpr RequestId kThreads = 3, kRequests = 12;
  std::mutex mutex;
  std::condition_variable ended;
  std::map<RequestId, int> ends;
  Engine engine(model_, tokenizer_, {.memory = 1U << 30U, .max_sequences = 3, .queue = 1000}, metrics_,
                [&](RequestId id, Event event) {
                  const std::scoped_lock lock(mutex);
                  if (event.end) ++ends[id];
                  ended.notify_one();
                });
  std::vector<std::thread> threads;
  for (RequestId thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      for (RequestId i = 0; i < kRequests; ++i) {
        const RequestId id = 1 + thread * kRequests + i;
        const bool is_cancelled = i % 3 == 2;
        engine.submit(id, job_of(prompt_of(20), is_cancelled ? 3000 : 5));
        if (is_cancelled) engine.cancel(id);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::unique_lock lock(mutex);
  ended.wait(lock, [&] { return ends.size() == kThreads * kRequests * 2 / 3; });
  for (const auto& [id, count] : ends) EXPECT_EQ(count, 1) << id;
}

TEST_F(EngineTest, ItEndsInTheMiddleOfARequest) {
  std::mutex mutex;
  std::condition_variable begun;
  bool has_begun = false;
  Engine engine(model_, tokenizer_, {.memory = 1U << 30U}, metrics_, [&](RequestId, const Event&) {
    const std::scoped_lock lock(mutex);
    has_begun = true;
    begun.notify_one();
  });
  Job job = job_of(prompt_of(20), 4000);
  job.generate.logprobs = 0;
  engine.submit(1, std::move(job));
  std::unique_lock lock(mutex);
  begun.wait(lock, [&] { return has_begun; });
}

}  // namespace
}  // namespace a2sf::serve
