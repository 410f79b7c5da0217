// The one thread pool of a model: the caller and its workers share out numbered tasks.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace a2sf {

class ThreadPool {
 public:
  // At least 1 thread, the caller included. Throws std::system_error, and leaves none running, if the system starts no
  // more.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  int threads() const { return static_cast<int>(shares_.size()); }

  // Calls body(task, worker) for every task in [0, tasks), each once, and returns when all are done. worker is in
  // [0, threads()). Not reentrant; one caller at a time. Which worker takes a task is not determined, but each begins
  // with a share of neighbouring ones, in order: what they read in passing is read on by the same thread.
  template <class Body>
  void run(int tasks, const Body& body) {
    if (workers_.empty() || tasks <= 1) {
      for (int task = 0; task < tasks; ++task) body(task, 0);
      return;
    }
    run_parallel(tasks, &body,
                 [](const void* context, int task, int worker) { (*static_cast<const Body*>(context))(task, worker); });
  }

 private:
  using Call = void (*)(const void* context, int task, int worker);
  void run_parallel(int tasks, const void* context, Call call);
  struct alignas(64) Share {
    std::atomic<std::uint64_t> ticket{0};  // the round, and how many of the share's tasks nobody has taken
    int end = 0;
  };
  void stop();
  void work(int worker);
  void take_tasks(int worker);
  void take_tasks_of(Share& share, int worker);

  std::vector<std::thread> workers_;
  const void* context_ = nullptr;
  Call call_ = nullptr;
  std::vector<Share> shares_;  // one per thread
  std::atomic<bool> stop_{false};
  alignas(64) std::atomic<std::uint32_t> round_{0};
  alignas(64) std::atomic<int> finished_{0};
};

}  // namespace a2sf
