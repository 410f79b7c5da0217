// A step: everything is checked and all memory is there before anything changes, and each sequence fails alone.
#include <fmt/format.h>

#include "core/reserve.h"
#include "engine/session_state.h"

namespace a2sf {
namespace {

std::size_t wanted_rows(const Feed& feed) {
  return feed.logits == WantLogits::none ? 0 : feed.logits == WantLogits::last ? 1 : feed.tokens.size();
}

}  // namespace

Status Session::State::check(const Feed& feed) const {
  if (broken) return fail(broken->kind, "this sequence failed before: " + broken->message);
  if (feed.tokens.empty()) return fail(ErrorKind::bad_input, "no tokens to feed");
  for (const std::int32_t token : feed.tokens) {
    if (token < 0 || token >= architecture().vocabulary) {
      return fail(ErrorKind::bad_input,
                  fmt::format("token {} is outside the vocabulary of {}", token, architecture().vocabulary));
    }
  }
  const auto count = static_cast<std::int64_t>(feed.tokens.size());
  if (options.most_tokens > 0 && position() + count > options.most_tokens) {
    return fail(ErrorKind::bad_input, fmt::format("the sequence was made for {} tokens; it would have {}",
                                                  options.most_tokens, position() + count));
  }
  if (position() + count > INT32_MAX) return fail(ErrorKind::bad_input, "a sequence is at most 2147483647 tokens long");
  if (const std::int64_t most = architecture().most_positions; most > 0 && position() + count > most) {
    const char* why =
        architecture().longrope ? " (longrope within its original context; beyond it is not supported)" : "";
    return fail(ErrorKind::bad_input,
                fmt::format("this model has positions for {} tokens{}; the sequence would have {}", most, why,
                            position() + count));
  }
  return {};
}

Status Session::State::make_room(const Feed& feed) {
  if (auto room = store->make_room(static_cast<std::int64_t>(feed.tokens.size()), feed.prompt); !room) return room;
  reserve_amortised(token_ids, token_ids.size() + feed.tokens.size());
  return {};
}

Span Session::State::begin(const Feed& feed, int number, int first_row) {
  const std::int64_t first_position = position();
  const bool whole_prompt = store->retention().whole_prompt;
  token_ids.insert(token_ids.end(), feed.tokens.begin(), feed.tokens.end());
  return {store.get(),
          number,
          first_row,
          static_cast<int>(feed.tokens.size()),
          first_position,
          whole_prompt && feed.prompt,
          whole_prompt && feed.prompt_ends,
          token_ids};
}

void Session::State::take_back(const Feed& feed) { token_ids.resize(token_ids.size() - feed.tokens.size()); }

void Session::State::end(const Feed& feed, Status outcome) {
  if (outcome && feed.prompt_ends) outcome = catch_bad_alloc([&] { return store->end_prompt(); });
  if (!outcome) fail_for_good(std::move(outcome.error()));
}

void Session::State::fail_for_good(Error error) {
  broken = std::move(error);
  logits.clear();
}

namespace {

// The sessions are there, each once, and of one model; every feed fits its sequence.
Status check_all(std::span<const Feed> feeds) {
  std::size_t rows = 0;
  for (const Feed& feed : feeds) {
    if (Session::State::find(feed) == nullptr) return fail(ErrorKind::bad_input, "a feed of a step has no session");
    const auto same = [&](const Feed& other) { return other.session == feed.session; };
    if (std::count_if(feeds.begin(), feeds.end(), same) > 1)
      return fail(ErrorKind::bad_input, "a session is twice in a step");
    const Session::State& state = Session::State::of(feed);
    if (state.model != Session::State::of(feeds.front()).model)
      return fail(ErrorKind::bad_input, "sessions of different models cannot share a step");
    if (auto valid = state.check(feed); !valid) return valid;
    rows += feed.tokens.size();
  }
  if (rows <= kMaxStepRows) return {};
  return fail(ErrorKind::bad_input, fmt::format("a step is at most {} tokens", kMaxStepRows));
}

// The rows of a step, and memory for all that it adds.
Status prepare_all(std::span<const Feed> feeds, StepBuffers& buffers, std::size_t vocabulary) {
  buffers.clear();
  for (const Feed& feed : feeds) {
    Session::State& state = Session::State::of(feed);
    if (auto room = state.make_room(feed); !room) return room;
    if (feeds.size() > 1) state.logits.reserve(wanted_rows(feed) * vocabulary);
    buffers.tokens.insert(buffers.tokens.end(), feed.tokens.begin(), feed.tokens.end());
    const int end = static_cast<int>(buffers.tokens.size()), wanted = static_cast<int>(wanted_rows(feed));
    for (int row = end - wanted; row < end; ++row) buffers.wanted.push_back(row);
  }
  buffers.spans.reserve(feeds.size());
  buffers.outcomes.resize(feeds.size());
  buffers.logits.resize(buffers.wanted.size() * vocabulary);
  return {};
}

// From here on the sequences change.
Status run_all(std::span<const Feed> feeds, StepBuffers& buffers, std::size_t vocabulary) {
  int first_row = 0;
  for (const Feed& feed : feeds) {
    const int number = static_cast<int>(buffers.spans.size());
    buffers.spans.push_back(Session::State::of(feed).begin(feed, number, first_row));
    first_row += buffers.spans.back().rows;
  }
  const Model& model = *Session::State::of(feeds.front()).model;
  auto started = model.parts().forward.run({buffers.tokens, buffers.spans}, buffers.wanted, buffers.logits.data(),
                                           buffers.outcomes);
  if (!started) {
    for (const Feed& feed : feeds) Session::State::of(feed).take_back(feed);
    return started;
  }
  Status first_failure;
  std::span<const float> rest = buffers.logits;
  for (std::size_t i = 0; i < feeds.size(); ++i) {
    Session::State& state = Session::State::of(feeds[i]);
    const auto rows = rest.first(wanted_rows(feeds[i]) * vocabulary);
    rest = rest.subspan(rows.size());
    if (feeds.size() > 1) state.logits.assign(rows.begin(), rows.end());
    if (feeds.size() == 1) state.logits.swap(buffers.logits);
    state.end(feeds[i], std::move(buffers.outcomes[i]));
    if (state.broken && first_failure) first_failure = tl::unexpected(*state.broken);
  }
  return first_failure;
}

}  // namespace

Status Session::step(std::span<const Feed> feeds) {
  if (feeds.empty()) return {};
  return catch_bad_alloc([&]() -> Status {
    if (auto valid = check_all(feeds); !valid) return valid;
    State& first = State::of(feeds.front());
    const auto vocabulary = static_cast<std::size_t>(first.architecture().vocabulary);
    if (auto prepared = prepare_all(feeds, first.buffers, vocabulary); !prepared) return prepared;
    try {
      return run_all(feeds, first.buffers, vocabulary);
    } catch (const std::bad_alloc&) {  // in the making of an error's message: how far the sequences came is not known
      for (const Feed& feed : feeds) State::of(feed).fail_for_good({ErrorKind::out_of_memory, "out of memory"});
      throw;
    }
  });
}

}  // namespace a2sf
