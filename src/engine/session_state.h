// What a Session is made of.
#pragma once

#include <a2sf/batch.h>
#include <a2sf/session.h>

#include <algorithm>
#include <memory>
#include <new>
#include <optional>
#include <vector>

#include "model/model_parts.h"

namespace a2sf {

// All that a fork copies; the cache beside it is cloned.
struct Sequence {
  std::shared_ptr<const Model> model;
  SessionOptions options;
  Retention retention;
  SlotPlans slots, bounded_slots;  // while rows run, and after a prompt under block = prompt
  bool holds_prompt = false;       // the cache is as a prompt under block = prompt needs it
  std::vector<std::int32_t> token_ids;
  std::vector<float> logits;
  bool records = false;
  std::vector<std::vector<Eviction>> evictions;
  std::optional<Error> broken;  // the layers no longer agree on what is in the cache
};

// What a step is put together in and what comes of it; kept, so that a decoded token allocates nothing.
struct Batch::State {
  std::vector<std::int32_t> tokens;
  std::vector<Span> spans;
  std::vector<int> wanted;    // rows whose logits are
  std::vector<float> logits;  // [wanted][vocabulary]; not cleared, since filling it with zeros would take time
  // Of each feed:
  std::vector<Status> outcomes;
  std::vector<std::span<const float>> rows;  // its part of `logits`

  void clear() {
    tokens.clear();
    spans.clear();
    wanted.clear();
    outcomes.clear();
    rows.clear();
  }
};

struct Session::State : Sequence {
  SequenceCache cache;
  std::size_t peak_bytes = 0;
  Batch::State buffers{};  // of the steps that this session leads

  // nullptr if the feed names no session, or one that was moved from.
  static State* find(const Feed& feed) { return feed.session == nullptr ? nullptr : feed.session->state_.get(); }
  static State& of(const Feed& feed) { return *find(feed); }

  const Architecture& architecture() const { return model->parts().weights.architecture; }
  std::int64_t position() const { return static_cast<std::int64_t>(token_ids.size()); }
  void note_peak() { peak_bytes = std::max(peak_bytes, cache.bytes()); }
  void replace_cache(SequenceCache rebuilt);
  void plan(ResolvedRetention resolved);

  // Of a step: one sequence's part in it.
  Status check(const Feed& feed) const;
  Status make_room(const Feed& feed);  // nothing but memory has changed
  Span begin(const Feed& feed, int first_row);
  void take_back(const Feed& feed);  // what begin() did
  void end(const Feed& feed, Status& outcome);
  void fail_for_good(const Error& error);

  // Of resize().
  std::vector<std::vector<int>> excess(const Retention& resized) const;
  void make_room_to_record(const std::vector<std::vector<int>>& victims);
  void record(const std::vector<std::vector<int>>& victims);
};

// What `function` returns, or an error where it runs out of memory.
template <class Function>
auto catch_bad_alloc(Function function) -> decltype(function()) {
  try {
    return function();
  } catch (const std::bad_alloc&) {
    return fail(ErrorKind::out_of_memory, "out of memory");
  }
}

}  // namespace a2sf
