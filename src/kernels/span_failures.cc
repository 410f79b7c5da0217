#include "kernels/span_failures.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace a2sf {

void SpanFailures::begin(const Step& step) {
  if (count_ < step.spans.size()) {
    entries_ = std::make_unique<Entry[]>(step.spans.size());
    count_ = step.spans.size();
  }
  step_ = &step;
  for (const Span& span : step.spans) at(span).failed.store(false, std::memory_order_relaxed);
}

void SpanFailures::report(const Span& span, FailureCause cause, std::int64_t position, int layer, int kv_head) {
  const std::scoped_lock lock(mutex_);
  Entry& entry = at(span);
  if (entry.failed.load(std::memory_order_relaxed)) return;
  entry.cause = cause;
  entry.position = position;
  entry.layer = layer;
  entry.kv_head = kv_head;
  entry.failed.store(true, std::memory_order_release);
}

void SpanFailures::report_hook(const Span& span, Error error) {
  at(span).hook = std::move(error);
  report(span, FailureCause::hook, 0);
}

void SpanFailures::report_logits(int row) {
  const auto holds = [row](const Span& span) { return row >= span.first_row && row < span.first_row + span.rows; };
  const auto span = std::find_if(step_->spans.begin(), step_->spans.end(), holds);
  report(*span, FailureCause::logits, span->first_position + row - span->first_row);
}

Error SpanFailures::error_of(const Entry& entry) {
  const auto place = [&] {
    return fmt::format("position {}, layer {}, KV head {}", entry.position, entry.layer, entry.kv_head);
  };
  switch (entry.cause) {
    case FailureCause::attention:
      return {ErrorKind::bad_input, "attention is not finite at " + place() + ": this sequence cannot go on"};
    case FailureCause::logits:
      return {ErrorKind::bad_input,
              fmt::format("the logits at position {} are not finite: this sequence cannot go on", entry.position)};
    case FailureCause::eviction:
      return {ErrorKind::bad_input, "no token could be evicted before " + place() + ": this sequence cannot go on"};
    case FailureCause::hook:
      break;
  }
  return entry.hook;
}

void SpanFailures::end(std::span<Status> outcomes) const {
  for (std::size_t i = 0; i < step_->spans.size(); ++i) {
    if (entries_[i].failed.load(std::memory_order_acquire)) outcomes[i] = tl::unexpected(error_of(entries_[i]));
  }
}

}  // namespace a2sf
