// A step: everything is checked and all memory is there before anything changes, and each sequence fails alone.
#include <fmt/format.h>

#include "core/reserve.h"
#include "engine/session_state.h"

namespace a2sf {
namespace {

std::size_t wanted_rows(const Feed& feed) {
  return feed.logits == WantLogits::none ? 0 : feed.logits == WantLogits::last ? 1 : feed.tokens.size();
}

Status check_ids(std::span<const std::int32_t> tokens, int vocabulary) {
  for (const std::int32_t token : tokens) {
    if (token < 0 || token >= vocabulary)
      return fail(ErrorKind::bad_input, fmt::format("token {} is outside the vocabulary of {}", token, vocabulary));
  }
  return {};
}

}  // namespace

Status Session::State::check(const Feed& feed) const {
  if (broken) return fail(broken->kind, "this sequence failed before: " + broken->message);
  if (feed.tokens.empty()) return fail(ErrorKind::bad_input, "no tokens to feed");
  if (feed.next.size() > feed.tokens.size())
    return fail(ErrorKind::bad_input,
                fmt::format("{} tokens follow the last rows of a feed of {}", feed.next.size(), feed.tokens.size()));
  for (const auto tokens : {feed.tokens, feed.next}) {
    if (auto known = check_ids(tokens, architecture().vocabulary); !known) return known;
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
  token_ids.insert(token_ids.end(), feed.tokens.begin(), feed.tokens.end());
  return {store.get(),    number,      first_row,        static_cast<int>(feed.tokens.size()),
          first_position, feed.prompt, feed.prompt_ends, token_ids};
}

void Session::State::take_back(const Feed& feed) { token_ids.resize(token_ids.size() - feed.tokens.size()); }

void Session::State::end(const Feed& feed, Status& outcome) {
  if (outcome && feed.prompt_ends) outcome = catch_bad_alloc([&] { return store->end_prompt(); });
  if (!outcome) fail_for_good(outcome.error());
}

void Session::State::fail_for_good(const Error& error) {
  auto copy = catch_bad_alloc([&]() -> Result<Error> { return error; });
  broken = copy ? std::move(*copy) : std::move(copy.error());
  logits.clear();
}

namespace {

// Who has the rows of logits when a step is done.
enum class Keeper { sessions, batch };

// How a session comes to what its logits() are.
enum class Transfer { none, copy, swap };

Transfer transfer_of(std::span<const Feed> feeds, const Feed& feed, Keeper keeper) {
  if (keeper == Keeper::sessions) return feeds.size() == 1 ? Transfer::swap : Transfer::copy;
  return feed.keep_logits ? Transfer::copy : Transfer::none;
}

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
  const Model& model = *Session::State::of(feeds.front()).model;
  const int most = model.parts().backend->capabilities().most_rows;
  if (rows <= static_cast<std::size_t>(most)) return {};
  return fail(ErrorKind::bad_input, fmt::format("a step is at most {} tokens", most));
}

// What a feed wants of its rows, which are the last ones: logits go to `logits`, the others' to `log_probabilities`.
void ask(const Feed& feed, int end, std::size_t vocabulary, float* logits, double* log_probabilities,
         std::vector<LogitsQuery>& queries) {
  const std::size_t whole = wanted_rows(feed), scored = feed.next.size();
  for (std::size_t left = std::max(whole, scored); left > 0; --left) {
    LogitsQuery query{.row = end - static_cast<int>(left)};
    if (left <= whole) query.logits = logits + (whole - left) * vocabulary;
    if (left <= scored) {
      query.tokens = feed.next.subspan(scored - left, 1);
      query.log_probabilities = {log_probabilities + (scored - left), 1};
    }
    queries.push_back(query);
  }
}

// The questions of all feeds, once their answers have a place.
void ask_all(std::span<const Feed> feeds, Batch::State& step, std::size_t vocabulary) {
  float* logits = step.logits.data();
  double* log_probabilities = step.log_probabilities.data();
  int end = 0;
  for (const Feed& feed : feeds) {
    end += static_cast<int>(feed.tokens.size());
    ask(feed, end, vocabulary, logits, log_probabilities, step.queries);
    logits += wanted_rows(feed) * vocabulary;
    log_probabilities += feed.next.size();
  }
}

// The rows of a step, and memory for all that it adds.
Status prepare_all(std::span<const Feed> feeds, Batch::State& step, std::size_t vocabulary, Keeper keeper) {
  step.clear();
  std::size_t whole = 0, scored = 0;
  for (const Feed& feed : feeds) {
    Session::State& state = Session::State::of(feed);
    if (auto room = state.make_room(feed); !room) return room;
    if (transfer_of(feeds, feed, keeper) == Transfer::copy) state.logits.reserve(wanted_rows(feed) * vocabulary);
    step.tokens.insert(step.tokens.end(), feed.tokens.begin(), feed.tokens.end());
    whole += wanted_rows(feed);
    scored += feed.next.size();
  }
  step.spans.reserve(feeds.size());
  step.outcomes.resize(feeds.size());
  step.rows.resize(feeds.size());
  step.of_next.resize(feeds.size());
  step.logits.resize(whole * vocabulary);
  step.log_probabilities.resize(scored);
  ask_all(feeds, step, vocabulary);
  return {};
}

// Every feed gets its rows, and its sequence ends the step or fails.
void finish_all(std::span<const Feed> feeds, Batch::State& step, std::size_t vocabulary, Keeper keeper) {
  std::span<const float> rest = step.logits;
  std::span<const double> rest_of_next = step.log_probabilities;
  for (std::size_t i = 0; i < feeds.size(); ++i) {
    Session::State& state = Session::State::of(feeds[i]);
    const auto rows = rest.first(wanted_rows(feeds[i]) * vocabulary);
    const auto of_next = rest_of_next.first(feeds[i].next.size());
    rest = rest.subspan(rows.size());
    rest_of_next = rest_of_next.subspan(of_next.size());
    state.end(feeds[i], step.outcomes[i]);
    if (!step.outcomes[i]) continue;
    step.rows[i] = rows;
    step.of_next[i] = of_next;
    const Transfer transfer = transfer_of(feeds, feeds[i], keeper);
    if (transfer == Transfer::none) state.logits.clear();
    if (transfer == Transfer::copy) state.logits.assign(rows.begin(), rows.end());
    if (transfer == Transfer::swap) state.logits.swap(step.logits);
  }
}

// From here on the sequences change.
Status commit_all(std::span<const Feed> feeds, Batch::State& step, std::size_t vocabulary, Keeper keeper) {
  int first_row = 0;
  for (const Feed& feed : feeds) {
    const int number = static_cast<int>(step.spans.size());
    step.spans.push_back(Session::State::of(feed).begin(feed, number, first_row));
    first_row += step.spans.back().rows;
  }
  const Model& model = *Session::State::of(feeds.front()).model;
  auto started = model.parts().forward.run({step.tokens, step.spans, step.queries}, step.outcomes);
  if (!started) {
    for (const Feed& feed : feeds) Session::State::of(feed).take_back(feed);
    return started;
  }
  finish_all(feeds, step, vocabulary, keeper);
  return {};
}

void fail_all(std::span<const Feed> feeds, Batch::State& step, const Error& error) {
  for (const Feed& feed : feeds) Session::State::of(feed).fail_for_good(error);
  std::fill(step.outcomes.begin(), step.outcomes.end(), tl::unexpected(error));
}

// The step of feeds that check_all() has seen. An error: it could not start.
Status run_checked(std::span<const Feed> feeds, Batch::State& step, Keeper keeper) {
  const auto vocabulary = static_cast<std::size_t>(Session::State::of(feeds.front()).architecture().vocabulary);
  if (auto prepared = prepare_all(feeds, step, vocabulary, keeper); !prepared) return prepared;
  try {
    return commit_all(feeds, step, vocabulary, keeper);
  } catch (const std::bad_alloc&) {  // in the making of an error's message: how far the sequences came is not known
    fail_all(feeds, step, {ErrorKind::out_of_memory, "out of memory"});
    return {};
  }
}

}  // namespace

Status Session::step(std::span<const Feed> feeds) {
  if (feeds.empty()) return {};
  return catch_bad_alloc([&]() -> Status {
    if (auto valid = check_all(feeds); !valid) return valid;
    for (const Feed& feed : feeds) {
      if (!feed.next.empty()) return fail(ErrorKind::bad_input, "log-probabilities are those of a Batch");
    }
    Batch::State& step = State::of(feeds.front()).buffers;
    if (auto started = run_checked(feeds, step, Keeper::sessions); !started) return started;
    const auto failed = std::find_if(step.outcomes.begin(), step.outcomes.end(), [](const Status& s) { return !s; });
    return failed == step.outcomes.end() ? Status() : *failed;
  });
}

Batch::Batch() noexcept = default;
Batch::Batch(Batch&&) noexcept = default;
Batch& Batch::operator=(Batch&&) noexcept = default;
Batch::~Batch() = default;

Status Batch::run(std::span<const Feed> feeds) {
  return catch_bad_alloc([&]() -> Status {
    if (state_ == nullptr) state_ = std::make_unique<State>();
    state_->clear();
    if (feeds.empty()) return {};
    if (auto valid = check_all(feeds); !valid) return valid;
    return run_checked(feeds, *state_, Keeper::batch);
  });
}

const Status& Batch::status(std::size_t i) const { return state_->outcomes[i]; }
std::span<const float> Batch::logits(std::size_t i) const { return state_->rows[i]; }
std::span<const double> Batch::log_probabilities(std::size_t i) const { return state_->of_next[i]; }

}  // namespace a2sf
