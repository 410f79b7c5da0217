// One sequence: its bounded KV cache, and the steps that extend it.
#pragma once

#include <a2sf/hook.h>
#include <a2sf/model.h>
#include <a2sf/policy.h>

#include <functional>
#include <span>

namespace a2sf {

enum class KvType { f16, f32 };

struct SessionOptions {
  PolicySpec policy;
  KvType kv_type = KvType::f16;
  std::int64_t sequence_tokens = 0;  // what a budget ratio is a ratio of; 0: ratios are refused
  std::int64_t most_tokens = 0;      // the sequence will never have more: no memory is taken for more; 0: not known
};

// The most bytes that the cache of a sequence takes until it has `tokens` tokens: slots that exist, in whole tiles or
// chunks, scores and padding included; under block = prompt, of one prompt of so many tokens, with both caches while it
// is cut to its budget. A session never takes more, and unless it is cut just so much. Fails where creating it would.
Result<std::uint64_t> cache_cost(const ModelInfo& info, const SessionOptions& options, std::int64_t tokens);

enum class WantLogits { none, last, all };

// One sequence's share of a step.
struct Feed {
  class Session* session;
  std::span<const std::int32_t> tokens;  // at least one, every id below the vocabulary's size
  WantLogits logits = WantLogits::last;
  bool prompt = false;       // with block = prompt: these tokens see everything before them
  bool prompt_ends = false;  // with block = prompt: evict to the budget after these tokens; with a cold tier: tokens
                             // come back before the last of them
  bool keep_logits = false;  // in a Batch: Session::logits() is a copy of the rows; a Session's own steps always keep
  // In a Batch only: what follows the last rows, for Batch::log_probabilities(). next[j] comes after the token
  // tokens[tokens.size() - next.size() + j].
  std::span<const std::int32_t> next = {};
};

// Not thread safe: a session belongs to one thread at a time.
class Session {
 public:
  // Fails if the spec does not fit (names the option), or if the device cannot do it. The cache takes memory as tokens
  // come.
  static Result<Session> create(std::shared_ptr<const Model> model, const SessionOptions& options);
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;
  ~Session();

  // Extends this sequence by `tokens`, in steps of at most 64. Afterwards logits() holds one row per wanted token.
  // `keep_going` is asked between steps with the tokens done so far; false cancels (what is done stays in the cache).
  Status feed(std::span<const std::int32_t> tokens, WantLogits logits = WantLogits::last, bool prompt = false,
              const std::function<bool(std::size_t)>& keep_going = {});
  // Extends several sequences of one model in one step: the rows share every matrix product. Bytes of the results do
  // not depend on which sequences share a step. At most 4096 rows.
  //
  // A step that cannot start (bad input, out of memory) is an error that leaves every session as it was. A sequence
  // that fails in it (see failure()) fails alone: the error is that of the first such feed, the others' results stand.
  static Status step(std::span<const Feed> feeds);

  // Why this sequence cannot go on, or nullptr: numbers that are not finite (an attention logit, a key, a value, an
  // output logit), a hook, no memory at the end of a prompt. It stays so, in forks too; every further feed is an error.
  const Error* failure() const;
  // [rows wanted][vocabulary] of the last feed or step, until the next one. None after a failure, and none after a
  // Batch's step that did not ask for them.
  std::span<const float> logits() const;
  std::int64_t position() const;      // tokens so far
  std::size_t kv_bytes() const;       // allocated now: slots that exist, scores and padding included
  std::size_t cold_bytes() const;     // of these, those of the cold tier, its recent queries included
  std::size_t peak_kv_bytes() const;  // both caches counted while one is rebuilt

  // A copy with a cache of its own; without observers and shadows.
  Result<Session> fork() const;
  // Changes the budget plan as a whole, a profile and chosen layers included; evicts at once where there are more
  // tokens than the new one allows, the same ones that a step would. The old cache goes when the new one is complete:
  // an error, out of memory included, leaves everything as it was.
  Status resize(const BudgetPlan& budget);

  // `layer` and `kv_head` count from 0 and must be the model's.
  std::vector<std::int32_t> retained(int layer, int kv_head) const;  // positions, ascending
  std::vector<float> scores(int layer, int kv_head) const;           // in the order of retained()
  HeadRule rule(int layer, int kv_head) const;

  // From now on records what leaves the cache; evictions() drains the record of one head.
  void record_evictions();
  std::vector<Eviction> evictions(int layer, int kv_head);
  // From now on somebody looks on; nullptr: nobody any more. Results are the same bytes, slower.
  Status observe(std::shared_ptr<Observer> observer, const HookNeeds& needs = {});
  // A second cache, under another policy, that is given the queries, keys and values of this sequence, as they are
  // under its own policy. Before the first token. Its memory counts in kv_bytes(); where it
  // fails, the sequence does.
  Status add_shadow(const PolicySpec& policy, std::shared_ptr<ShadowObserver> observer, const HookNeeds& needs = {});

  struct State;  // private to the library
 private:
  explicit Session(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace a2sf
