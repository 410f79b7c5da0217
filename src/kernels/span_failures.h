// What went wrong in a step, sequence by sequence: one that fails is left out of the rest, its neighbours go on.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <span>
#include <string>

#include "kernels/backend.h"

namespace a2sf {

enum class FailureCause {
  attention,  // a key, a value or an attention logit is not finite
  logits,     // an output logit is not finite
  eviction,   // no token may go, so that the next one has no slot
  hook,       // as the message says
};

// Thread safe but for begin() and end(). Reporting allocates nothing, except for a hook's message.
class SpanFailures {
 public:
  void begin(const Step& step);  // may throw std::bad_alloc
  bool failed(const Span& span) const { return at(span).failed.load(std::memory_order_acquire); }
  // The first report of a span stays. `layer` and `kv_head`: of an attention or eviction failure.
  void report(const Span& span, FailureCause cause, std::int64_t position, int layer = 0, int kv_head = 0);
  void report_hook(const Span& span, Error error);
  // Reports the span of the row whose logits these are.
  void report_logits(int row);
  void end(std::span<Status> outcomes) const;

 private:
  struct Entry {
    std::atomic<bool> failed{false};
    FailureCause cause{};
    std::int64_t position = 0;
    int layer = 0, kv_head = 0;
    Error hook{};
  };
  Entry& at(const Span& span) const { return entries_[static_cast<std::size_t>(span.number)]; }
  static Error error_of(const Entry& entry);

  const Step* step_ = nullptr;
  std::unique_ptr<Entry[]> entries_;  // [span]
  std::size_t count_ = 0;
  std::mutex mutex_;  // of the fields beside `failed`
};

}  // namespace a2sf
