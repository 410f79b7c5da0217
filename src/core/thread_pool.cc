#include "core/thread_pool.h"

namespace a2sf {
namespace {

// A step is some two hundred short parallel regions: between them a worker spins for a while before it sleeps.
constexpr int kSpins = 20000;

constexpr std::uint64_t kTaskMask = 0xffffffff;  // the lower half of a ticket

// Tells the core that this is a spin; nothing where there is no instruction for it.
void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads) : shares_(static_cast<std::size_t>(threads)) {
  try {
    for (int worker = 1; worker < threads; ++worker) workers_.emplace_back([this, worker] { work(worker); });
  } catch (...) {
    stop();
    throw;
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  stop_ = true;
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  for (auto& worker : workers_) worker.join();
}

void ThreadPool::run_parallel(int tasks, const void* context, Call call) {
  context_ = context;
  call_ = call;
  finished_.store(0, std::memory_order_relaxed);
  const std::uint32_t round = round_.load(std::memory_order_relaxed) + 1;
  for (std::int64_t i = 0, begin = 0; i < threads(); ++i) {
    Share& share = shares_[static_cast<std::size_t>(i)];
    share.end = static_cast<int>(tasks * (i + 1) / threads());
    share.ticket.store(std::uint64_t{round} << 32 | static_cast<std::uint32_t>(share.end - begin),
                       std::memory_order_release);
    begin = share.end;
  }
  round_.store(round, std::memory_order_release);
  round_.notify_all();
  take_tasks(0);
  // Tasks, not workers, are waited for: one that the system has put aside holds nobody up.
  for (int spins = 0; finished_.load(std::memory_order_acquire) != tasks; ++spins) {
    if (spins < kSpins) {
      pause();
    } else {
      std::this_thread::yield();
    }
  }
}

// Its own share first, then what is left of the others'.
void ThreadPool::take_tasks(int worker) {
  for (int i = 0; i < threads(); ++i)
    take_tasks_of(shares_[static_cast<std::size_t>((worker + i) % threads())], worker);
}

// Whoever holds a task keeps its round alive, so the round's fields are read after the task was taken.
void ThreadPool::take_tasks_of(Share& share, int worker) {
  std::uint64_t ticket = share.ticket.load(std::memory_order_acquire);
  while ((ticket & kTaskMask) != 0) {
    if (!share.ticket.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel, std::memory_order_acquire))
      continue;
    call_(context_, share.end - static_cast<int>(ticket & kTaskMask), worker);
    finished_.fetch_add(1, std::memory_order_release);
    ticket = share.ticket.load(std::memory_order_acquire);
  }
}

void ThreadPool::work(int worker) {
  std::uint32_t seen = 0;
  while (true) {
    for (int spins = 0; round_.load(std::memory_order_acquire) == seen && spins < kSpins; ++spins) pause();
    round_.wait(seen, std::memory_order_acquire);
    seen = round_.load(std::memory_order_acquire);  // it may be several rounds later
    if (stop_) return;
    take_tasks(worker);
  }
}

}  // namespace a2sf
