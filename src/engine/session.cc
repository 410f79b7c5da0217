#include <a2sf/session.h>

#include <algorithm>
#include <utility>

#include "engine/session_state.h"

namespace a2sf {
namespace {

constexpr std::size_t kChunkTokens =
    64;  // rows of a step in feed(): enough to reuse a weight row, few enough for the caches

// What the device would have to do and cannot.
Status check_device(const Capabilities& device, const Retention& retention, KvType kv_type) {
  const auto has = [](const auto& all, auto one) { return std::find(all.begin(), all.end(), one) != all.end(); };
  const auto refuse = [&](const char* what) {
    return fail(ErrorKind::unsupported, "device '" + device.name + "' has no " + what);
  };
  if (!has(device.kv_types, kv_type)) return refuse(kv_type == KvType::f16 ? "caches of f16" : "caches of f32");
  if (retention.whole_prompt && !device.whole_prompt) return refuse("block = prompt");
  if (has(device.modes, retention.mode)) return {};
  switch (retention.mode) {
    case RetentionMode::all:
      return refuse("unbounded caches");
    case RetentionMode::score:
      return refuse("policies that score");
    case RetentionMode::ideal:
      return refuse("policy 'ideal'");
    case RetentionMode::hook:
      break;
  }
  return refuse("hooks");
}

}  // namespace

Session::Session(std::unique_ptr<State> state) : state_(std::move(state)) {}
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;
Session::~Session() = default;

void Session::State::plan(ResolvedRetention resolved) {
  retention = std::move(resolved.retention);
  slots = std::move(resolved.slots);
  bounded_slots = std::move(resolved.bounded_slots);
}

// The old one goes when the new one is there.
void Session::State::replace_cache(SequenceCache rebuilt) {
  peak_bytes = std::max(peak_bytes, cache.bytes() + rebuilt.bytes());
  cache = std::move(rebuilt);
}

Result<Session> Session::create(std::shared_ptr<const Model> model, const SessionOptions& options) {
  return catch_bad_alloc([&]() -> Result<Session> {
    const Architecture& a = model->parts().weights.architecture;
    auto resolved = resolve_all(options.policy, a.windows, a.kv_heads, options.sequence_tokens, options.most_tokens);
    if (!resolved) return tl::unexpected(resolved.error());
    const Capabilities& device = model->parts().backend->capabilities();
    if (auto can = check_device(device, resolved->retention, options.kv_type); !can) return tl::unexpected(can.error());
    auto state = std::make_unique<State>();
    state->model = std::move(model);
    state->options = options;
    state->plan(std::move(*resolved));
    state->holds_prompt = state->retention.whole_prompt;
    state->cache = SequenceCache(state->model->parts().backend->memory(),
                                 {a.layers, a.kv_heads, a.head_dim, options.kv_type}, state->slots);
    state->evictions.resize(static_cast<std::size_t>(a.layers * a.kv_heads));
    return Session(std::move(state));
  });
}

Status Session::feed(std::span<const std::int32_t> tokens, WantLogits logits, bool prompt,
                     const std::function<bool(std::size_t)>& keep_going) {
  if (tokens.empty()) return fail(ErrorKind::bad_input, "no tokens to feed");
  const bool collects = logits == WantLogits::all && tokens.size() > kChunkTokens;
  std::vector<float> rows;
  auto room = catch_bad_alloc([&]() -> Status {
    if (collects) rows.reserve(tokens.size() * static_cast<std::size_t>(state_->architecture().vocabulary));
    return {};
  });
  if (!room) return room;
  for (std::size_t done = 0; done < tokens.size();) {
    const std::size_t count = std::min(kChunkTokens, tokens.size() - done);
    const bool is_last = done + count == tokens.size();
    const WantLogits wanted = logits == WantLogits::last && !is_last ? WantLogits::none : logits;
    const Feed part{this, tokens.subspan(done, count), wanted, prompt, prompt && is_last};
    if (auto stepped = step(std::span(&part, 1)); !stepped) return stepped;
    if (collects) rows.insert(rows.end(), state_->logits.begin(), state_->logits.end());
    done += count;
    if (keep_going && !keep_going(done)) return fail(ErrorKind::cancelled, "cancelled");
  }
  if (!rows.empty()) state_->logits = std::move(rows);
  return {};
}

const Error* Session::failure() const { return state_->broken ? &*state_->broken : nullptr; }
std::span<const float> Session::logits() const { return state_->logits; }
std::int64_t Session::position() const { return state_->position(); }
std::size_t Session::kv_bytes() const { return state_->cache.bytes(); }
std::size_t Session::peak_kv_bytes() const { return state_->peak_bytes; }

Result<Session> Session::fork() const {
  return catch_bad_alloc([&]() -> Result<Session> {
    auto cache = state_->cache.clone();
    if (!cache) return tl::unexpected(cache.error());
    auto state = std::make_unique<State>(State{*state_, std::move(*cache)});
    state->note_peak();
    return Session(std::move(state));
  });
}

// What a smaller budget evicts at once: slots of each head, in the order in which they go.
std::vector<std::vector<int>> Session::State::excess(const Retention& resized) const {
  std::vector<std::vector<int>> victims(resized.rules.size());
  if (position() == 0 || resized.mode == RetentionMode::all || resized.mode == RetentionMode::ideal) return victims;
  for (std::size_t i = 0; i < victims.size(); ++i) {
    const HeadCache& head = cache.head(static_cast<int>(i) / resized.kv_heads, static_cast<int>(i) % resized.kv_heads);
    const HeadRule& rule = resized.rules[i];
    select_victims(head, Evictable(rule, resized.pin, position() - 1), head.occupied() - rule.budget, victims[i]);
  }
  return victims;
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
  return catch_bad_alloc([&]() -> Status {
    State& state = *state_;
    if (state.broken) return tl::unexpected(*state.broken);
    const Architecture& a = state.architecture();
    PolicySpec spec = state.options.policy;
    spec.budget = budget;
    auto resolved = resolve_all(spec, a.windows, a.kv_heads, state.options.sequence_tokens, state.options.most_tokens);
    if (!resolved) return tl::unexpected(resolved.error());
    const auto victims = state.excess(resolved->retention);
    auto rebuilt = state.cache.rebuilt(resolved->bounded_slots, victims);
    if (!rebuilt) return tl::unexpected(rebuilt.error());
    state.make_room_to_record(victims);
    // From here on nothing can fail.
    state.record(victims);
    state.replace_cache(std::move(*rebuilt));
    state.holds_prompt = false;
    state.options.policy = std::move(spec);
    state.plan(std::move(*resolved));
    return {};
  });
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
