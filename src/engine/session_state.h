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

// All that a fork copies; the store beside it is cloned.
struct Sequence {
  std::shared_ptr<const Model> model;
  SessionOptions options;
  std::vector<std::int32_t> token_ids;
  std::vector<float> logits;
  std::optional<Error> broken;  // the layers no longer agree on what is in the cache
};

// What a step is put together in and what comes of it; kept, so that a decoded token allocates nothing.
struct Batch::State {
  std::vector<std::int32_t> tokens;
  std::vector<Span> spans;
  std::vector<LogitsQuery> queries;       // of the rows of which something is wanted
  std::vector<float> logits;              // whole rows; not cleared, since filling it with zeros would take time
  std::vector<double> log_probabilities;  // of single tokens
  // Of each feed:
  std::vector<Status> outcomes;
  std::vector<std::span<const float>> rows;      // its part of `logits`
  std::vector<std::span<const double>> of_next;  // its part of `log_probabilities`

  void clear() {
    tokens.clear();
    spans.clear();
    queries.clear();
    outcomes.clear();
    rows.clear();
    of_next.clear();
  }
};

struct Session::State : Sequence {
  std::unique_ptr<SequenceStore> store;
  Batch::State buffers{};  // of the steps that this session leads

  // nullptr if the feed names no session, or one that was moved from.
  static State* find(const Feed& feed) { return feed.session == nullptr ? nullptr : feed.session->state_.get(); }
  static State& of(const Feed& feed) { return *find(feed); }

  const Architecture& architecture() const { return model->parts().weights.architecture; }
  std::int64_t position() const { return static_cast<std::int64_t>(token_ids.size()); }

  std::unique_ptr<SequenceStore> make_store(ResolvedRetention resolved) const;

  // Of a step: one sequence's part in it.
  Status check(const Feed& feed) const;
  Status make_room(const Feed& feed);  // nothing but memory has changed
  Span begin(const Feed& feed, int number, int first_row);
  void take_back(const Feed& feed);  // what begin() did
  void end(const Feed& feed, Status& outcome);
  void fail_for_good(const Error& error);
};

// What a session of these options needs, or why there can be none.
Result<ResolvedRetention> resolve_for(const ModelInfo& info, const SessionOptions& options);
SequenceShape sequence_shape(const ModelInfo& info, float scale, KvType type);

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
