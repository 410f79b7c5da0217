#include <a2sf/session.h>

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "engine/session_state.h"

namespace a2sf {
namespace {

constexpr std::size_t kChunkTokens =
    64;  // rows of a step in feed(): enough to reuse a weight row, few enough for the caches

// What a sequence of these options needs, where the model's device can give it.
Result<ResolvedRetention> resolve_on(const Model& model, const SessionOptions& options) {
  auto resolved = resolve_for(model.info(), options);
  if (!resolved) return resolved;
  const Capabilities& device = model.parts().backend->capabilities();
  if (auto can = device.check(resolved->retention, options.kv_type); !can) return tl::unexpected(can.error());
  return resolved;
}

Status check_observer_needs(const HookNeeds& needs) {
  if (needs.numbers > 0) return fail(ErrorKind::bad_input, "numbers beside tokens are a hook's; an observer has none");
  return check_needs(needs);
}

}  // namespace

Session::Session(std::unique_ptr<State> state) : state_(std::move(state)) {}
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;
Session::~Session() = default;

Result<ResolvedRetention> resolve_for(const ModelInfo& info, const SessionOptions& options) {
  auto resolved =
      resolve_all(options.policy, info.windows, info.kv_heads, options.sequence_tokens, options.most_tokens);
  if (!resolved) return resolved;
  if (const auto& hook = resolved->retention.hook; hook != nullptr) {
    if (auto fits = hook->check(&info); !fits) return tl::unexpected(fits.error());
  }
  const TokenClasses* classes = resolved->retention.classes.get();
  if (classes == nullptr || classes->class_of.size() == static_cast<std::size_t>(info.vocabulary)) return resolved;
  return fail(
      ErrorKind::bad_input,
      fmt::format("'{}' has classes of {} tokens, this model {}: make one with a2sf tune -m MODEL --classes TEXT",
                  classes->file, classes->class_of.size(), info.vocabulary));
}

SequenceShape sequence_shape(const ModelInfo& info, float scale, KvType type) {
  return {info.layers, info.heads, info.kv_heads, info.head_dim, type, scale, info.windows};
}

Result<Session> Session::create(std::shared_ptr<const Model> model, const SessionOptions& options) {
  return catch_bad_alloc([&]() -> Result<Session> {
    auto resolved = resolve_on(*model, options);
    if (!resolved) return tl::unexpected(resolved.error());
    auto state = std::make_unique<State>();
    state->model = std::move(model);
    state->options = options;
    state->store = state->make_store(std::move(*resolved));
    return Session(std::move(state));
  });
}

std::unique_ptr<SequenceStore> Session::State::make_store(ResolvedRetention resolved) const {
  const Model::Parts& parts = model->parts();
  return parts.backend->make_sequence(
      sequence_shape(model->info(), parts.weights.architecture.attention_scale, options.kv_type), std::move(resolved));
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
std::size_t Session::kv_bytes() const { return state_->store->bytes(); }
std::size_t Session::cold_bytes() const { return state_->store->cold_bytes(); }
std::size_t Session::peak_kv_bytes() const { return state_->store->peak_bytes(); }

Result<Session> Session::fork() const {
  return catch_bad_alloc([&]() -> Result<Session> {
    auto store = state_->store->clone();
    if (!store) return tl::unexpected(store.error());
    auto state = std::make_unique<State>(State{*state_, std::move(*store)});
    return Session(std::move(state));
  });
}

Status Session::resize(const BudgetPlan& budget) {
  return catch_bad_alloc([&]() -> Status {
    State& state = *state_;
    if (state.broken) return tl::unexpected(*state.broken);
    SessionOptions options = state.options;
    options.policy.budget = budget;
    auto resolved = resolve_on(*state.model, options);
    if (!resolved) return tl::unexpected(resolved.error());
    if (auto resized = state.store->resize(std::move(*resolved), state.token_ids); !resized) return resized;
    state.options = std::move(options);
    return {};
  });
}

std::vector<std::int32_t> Session::retained(int layer, int kv_head) const {
  std::vector<std::int32_t> positions;
  for (const RetainedToken& token : state_->store->snapshot(layer, kv_head)) positions.push_back(token.position);
  return positions;
}

std::vector<float> Session::scores(int layer, int kv_head) const {
  std::vector<float> scores;
  for (const RetainedToken& token : state_->store->snapshot(layer, kv_head)) scores.push_back(token.score);
  return scores;
}

HeadRule Session::rule(int layer, int kv_head) const { return state_->store->retention().rule(layer, kv_head); }

void Session::record_evictions() { state_->store->record_evictions(); }

std::vector<Eviction> Session::evictions(int layer, int kv_head) {
  return state_->store->drain_evictions(layer, kv_head);
}

Status Session::observe(std::shared_ptr<Observer> observer, const HookNeeds& needs) {
  if (auto valid = check_observer_needs(needs); !valid) return valid;
  return state_->store->observe(std::move(observer), needs);
}

Status Session::add_shadow(const PolicySpec& policy, std::shared_ptr<ShadowObserver> observer, const HookNeeds& needs) {
  return catch_bad_alloc([&]() -> Status {
    if (state_->position() > 0) return fail(ErrorKind::bad_input, "a shadow must see a sequence from its first token");
    if (observer == nullptr) return fail(ErrorKind::bad_input, "a shadow needs an observer");
    if (auto valid = check_observer_needs(needs); !valid) return valid;
    SessionOptions options = state_->options;
    options.policy = policy;
    auto resolved = resolve_on(*state_->model, options);
    if (!resolved) return tl::unexpected(resolved.error());
    auto shadow = state_->make_store(std::move(*resolved));
    if (auto observed = shadow->observe(observer, needs); !observed) return observed;
    return state_->store->add_shadow(std::move(shadow), std::move(observer));
  });
}

}  // namespace a2sf
