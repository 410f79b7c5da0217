#include <a2sf/session.h>

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "model/model_parts.h"

namespace a2sf {
namespace {

constexpr std::size_t kChunkTokens =
    64;  // rows of a step in feed(): enough to reuse a weight row, few enough for the caches

// All that a fork copies; the cache beside it is cloned.
struct Sequence {
  std::shared_ptr<const Model> model;
  SessionOptions options;
  Retention retention;
  SlotCounts bounded_slots;
  std::vector<std::int32_t> token_ids;
  std::vector<float> logits;
  bool records = false;
  std::vector<std::vector<Eviction>> evictions;
  std::optional<Error> broken;  // a step failed half way: the layers no longer agree on what is in the cache
};

// What a step is put together in; kept, so that a decoded token allocates nothing.
struct StepBuffers {
  std::vector<std::int32_t> tokens;
  std::vector<Span> spans;
  std::vector<int> wanted;          // rows whose logits are
  std::vector<std::size_t> counts;  // of wanted rows, per feed

  void clear() {
    tokens.clear();
    spans.clear();
    wanted.clear();
    counts.clear();
  }
};

}  // namespace

struct Session::State : Sequence {
  SequenceCache cache;
  std::size_t peak_bytes = 0;
  StepBuffers buffers{};  // of the steps that this session leads

  const Architecture& architecture() const { return model->parts().weights.architecture; }
  std::int64_t position() const { return static_cast<std::int64_t>(token_ids.size()); }
  void note_peak() { peak_bytes = std::max(peak_bytes, cache.bytes()); }
  Result<std::size_t> prepare(const Feed& feed);
  Status finish(const Feed& feed);
  std::vector<std::vector<int>> excess(const Retention& resized) const;
  void make_room_to_record(const std::vector<std::vector<int>>& victims);
  void record(const std::vector<std::vector<int>>& victims);
};

// Checks a feed and makes room for it; nothing has changed if it fails. Returns how many rows of logits it wants.
Result<std::size_t> Session::State::prepare(const Feed& feed) {
  if (broken) return fail(broken->kind, "this sequence failed before: " + broken->message);
  if (feed.tokens.empty()) return fail(ErrorKind::bad_input, "no tokens to feed");
  for (const std::int32_t token : feed.tokens) {
    if (token < 0 || token >= architecture().vocabulary) {
      return fail(ErrorKind::bad_input,
                  fmt::format("token {} is outside the vocabulary of {}", token, architecture().vocabulary));
    }
  }
  const auto count = static_cast<std::int64_t>(feed.tokens.size());
  if (position() + count > INT32_MAX) return fail(ErrorKind::bad_input, "a sequence is at most 2147483647 tokens long");
  if (const std::int64_t most = architecture().most_positions; most > 0 && position() + count > most) {
    const char* why =
        architecture().longrope ? " (longrope within its original context; beyond it is not supported)" : "";
    return fail(ErrorKind::bad_input,
                fmt::format("this model has positions for {} tokens{}; the sequence would have {}", most, why,
                            position() + count));
  }
  // A later user turn under block = prompt: the bounded cache grows again for its prompt.
  if (retention.whole_prompt && feed.prompt && !bounded_slots.empty() && cache.head(0, 0).limit != 0) {
    auto grown = cache.rebuilt(SlotCounts(bounded_slots.size(), 0));
    if (!grown) return tl::unexpected(grown.error());
    cache = std::move(*grown);
  }
  if (auto room = cache.make_room(count); !room) return tl::unexpected(room.error());
  note_peak();
  return feed.logits == WantLogits::none ? 0 : feed.logits == WantLogits::last ? 1 : feed.tokens.size();
}

Status Session::State::finish(const Feed& feed) {
  if (!retention.whole_prompt || !feed.prompt_ends) return {};
  auto compacted = cache.rebuilt(bounded_slots);
  if (!compacted) return tl::unexpected(compacted.error());
  cache = std::move(*compacted);
  return {};
}

Session::Session(std::unique_ptr<State> state) : state_(std::move(state)) {}
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;
Session::~Session() = default;

Result<Session> Session::create(std::shared_ptr<const Model> model, const SessionOptions& options) {
  const Architecture& a = model->parts().weights.architecture;
  auto resolved = resolve_all(options.policy, a.windows, a.kv_heads, options.sequence_tokens);
  if (!resolved) return tl::unexpected(resolved.error());
  auto cache = SequenceCache::create(model->parts().backend->memory(),
                                     {a.layers, a.kv_heads, a.head_dim, options.kv_type}, std::move(resolved->slots));
  if (!cache) return tl::unexpected(cache.error());
  auto state = std::make_unique<State>();
  state->model = std::move(model);
  state->options = options;
  state->retention = std::move(resolved->retention);
  state->bounded_slots = std::move(resolved->bounded_slots);
  state->cache = std::move(*cache);
  state->evictions.resize(static_cast<std::size_t>(a.layers * a.kv_heads));
  state->note_peak();
  return Session(std::move(state));
}

Status Session::step(std::span<const Feed> feeds) {
  if (feeds.empty()) return {};
  StepBuffers& buffers = feeds.front().session->state_->buffers;
  buffers.clear();
  auto& [tokens, spans, wanted, counts] = buffers;
  const Model* model = feeds.front().session->state_->model.get();
  for (const Feed& feed : feeds) {
    const auto same = [&](const Feed& other) { return other.session == feed.session; };
    if (std::count_if(feeds.begin(), feeds.end(), same) > 1)
      return fail(ErrorKind::bad_input, "a session is twice in a step");
    State& state = *feed.session->state_;
    if (state.model.get() != model)
      return fail(ErrorKind::bad_input, "sessions of different models cannot share a step");
    auto count = state.prepare(feed);
    if (!count) return tl::unexpected(count.error());
    counts.push_back(*count);
    const int first = static_cast<int>(tokens.size()), rows = static_cast<int>(feed.tokens.size());
    tokens.insert(tokens.end(), feed.tokens.begin(), feed.tokens.end());
    for (std::size_t i = 0; i < *count; ++i) wanted.push_back(first + rows - static_cast<int>(*count - i));
  }
  if (tokens.size() > kMaxStepRows)
    return fail(ErrorKind::bad_input, fmt::format("a step is at most {} tokens", kMaxStepRows));
  int first_row = 0;
  for (const Feed& feed : feeds) {
    State& state = *feed.session->state_;
    const std::int64_t position = state.position();
    const int rows = static_cast<int>(feed.tokens.size());
    state.token_ids.insert(state.token_ids.end(), feed.tokens.begin(), feed.tokens.end());
    spans.push_back({&state.cache, &state.retention, first_row, rows, position,
                     state.retention.whole_prompt && feed.prompt, state.retention.whole_prompt && feed.prompt_ends,
                     state.token_ids, state.records ? &state.evictions : nullptr});
    first_row += rows;
  }
  const auto vocabulary = static_cast<std::size_t>(model->info().vocabulary);
  // The first session's buffer takes the rows of all; the others copy theirs.
  std::vector<float>& logits = feeds.front().session->state_->logits;
  logits.resize(wanted.size() * vocabulary);
  if (auto done = model->parts().forward.run({tokens, spans}, wanted, logits.data()); !done) {
    for (const Feed& feed : feeds) feed.session->state_->broken = done.error();
    logits.clear();
    return done;
  }
  std::span rest = std::span(logits).subspan(counts.front() * vocabulary);
  for (std::size_t i = 1; i < feeds.size(); ++i) {
    const std::span own = rest.first(counts[i] * vocabulary);
    feeds[i].session->state_->logits.assign(own.begin(), own.end());
    rest = rest.subspan(own.size());
  }
  logits.resize(counts.front() * vocabulary);
  for (const Feed& feed : feeds) {
    if (auto finished = feed.session->state_->finish(feed); !finished) return finished;
  }
  return {};
}

Status Session::feed(std::span<const std::int32_t> tokens, WantLogits logits, bool prompt,
                     const std::function<bool(std::size_t)>& keep_going) {
  if (tokens.empty()) return fail(ErrorKind::bad_input, "no tokens to feed");
  std::vector<float> rows;
  for (std::size_t done = 0; done < tokens.size();) {
    const std::size_t count = std::min(kChunkTokens, tokens.size() - done);
    const bool is_last = done + count == tokens.size();
    const WantLogits wanted = logits == WantLogits::last && !is_last ? WantLogits::none : logits;
    const Feed part{this, tokens.subspan(done, count), wanted, prompt, prompt && is_last};
    if (auto stepped = step(std::span(&part, 1)); !stepped) return stepped;
    if (logits == WantLogits::all && tokens.size() > kChunkTokens) {
      rows.insert(rows.end(), state_->logits.begin(), state_->logits.end());
    }
    done += count;
    if (keep_going && !keep_going(done)) return fail(ErrorKind::cancelled, "cancelled");
  }
  if (!rows.empty()) state_->logits = std::move(rows);
  return {};
}

std::span<const float> Session::logits() const { return state_->logits; }
std::int64_t Session::position() const { return state_->position(); }
std::size_t Session::kv_bytes() const { return state_->cache.bytes(); }
std::size_t Session::peak_kv_bytes() const { return state_->peak_bytes; }

Result<Session> Session::fork() const {
  auto cache = state_->cache.clone();
  if (!cache) return tl::unexpected(cache.error());
  auto state = std::make_unique<State>(State{*state_, std::move(*cache)});
  state->note_peak();
  return Session(std::move(state));
}

// What a smaller budget evicts at once: slots of each head, in the order in which they go.
std::vector<std::vector<int>> Session::State::excess(const Retention& resized) const {
  std::vector<std::vector<int>> slots(resized.rules.size());
  if (position() == 0 || resized.mode == RetentionMode::all || resized.mode == RetentionMode::ideal) return slots;
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const HeadCache& head = cache.head(static_cast<int>(i) / resized.kv_heads, static_cast<int>(i) % resized.kv_heads);
    const HeadRule& rule = resized.rules[i];
    select_victims(head, Evictable(rule, resized.pin, position() - 1), head.occupied() - rule.budget, slots[i]);
  }
  return slots;
}

void Session::State::make_room_to_record(const std::vector<std::vector<int>>& victims) {
  for (std::size_t i = 0; records && i < victims.size(); ++i)
    evictions[i].reserve(evictions[i].size() + victims[i].size());
}

void Session::State::record(const std::vector<std::vector<int>>& victims) {
  for (std::size_t i = 0; records && i < victims.size(); ++i) {
    const HeadCache& head =
        cache.head(static_cast<int>(i) / retention.kv_heads, static_cast<int>(i) % retention.kv_heads);
    for (const int slot : victims[i]) {
      evictions[i].push_back({head.position(slot), static_cast<std::int32_t>(position() - 1)});
    }
  }
}

Status Session::resize(const Budget& budget) {
  State& state = *state_;
  const Architecture& a = state.architecture();
  PolicySpec spec = state.options.policy;
  spec.budget = budget;
  auto resolved = resolve_all(spec, a.windows, a.kv_heads, state.options.sequence_tokens);
  if (!resolved) return tl::unexpected(resolved.error());
  const auto victims = state.excess(resolved->retention);
  auto rebuilt = state.cache.rebuilt(resolved->bounded_slots, victims);
  if (!rebuilt) return tl::unexpected(rebuilt.error());
  state.make_room_to_record(victims);
  // From here on nothing can fail.
  state.record(victims);
  state.cache = std::move(*rebuilt);
  state.options.policy = std::move(spec);
  state.retention = std::move(resolved->retention);
  state.bounded_slots = std::move(resolved->bounded_slots);
  state.note_peak();
  return {};
}

std::vector<std::int32_t> Session::retained(int layer, int kv_head) const {
  const HeadCache& head = state_->cache.head(layer, kv_head);
  std::vector<std::int32_t> positions;
  for (const int slot : head.slots_by_position()) positions.push_back(head.position(slot));
  return positions;
}

std::vector<float> Session::scores(int layer, int kv_head) const {
  const HeadCache& head = state_->cache.head(layer, kv_head);
  std::vector<float> scores;
  for (const int slot : head.slots_by_position()) scores.push_back(head.score(slot));
  return scores;
}

HeadRule Session::rule(int layer, int kv_head) const { return state_->retention.rule(layer, kv_head); }

void Session::record_evictions() { state_->records = true; }

std::vector<Eviction> Session::evictions(int layer, int kv_head) {
  return std::exchange(state_->evictions[static_cast<std::size_t>(layer * state_->architecture().kv_heads + kv_head)],
                       {});
}

}  // namespace a2sf
