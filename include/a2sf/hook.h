// Policies outside the family, and onlookers: objects that see what a layer holds after its rows.
//
// A hook names what goes, may merge what goes into what stays, and keeps numbers of its own beside each token. It
// belongs to one sequence: a factory makes it, a fork clones it. The engine calls it when the heads of a layer hold
// their budgets and a block more (or one of them its capacity and a block), or once at the end of a prompt
// (EvictAtPromptEnd), and again when a session is resized. Sinks, pins, recent tokens, windows and capacities are the
// engine's: naming a protected token is an error of the sequence that names the hook.
//
// All calls for one sequence come one after the other: in a step, all of its rows in one layer, in order, then the next
// layer. Views are valid during the call. Exceptions must not leave it, but for std::bad_alloc.
#pragma once

#include <a2sf/result.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace a2sf {

struct ModelInfo;

// What a hook or an observer wants to see beside positions and scores. What nobody asks for costs nothing; asking for
// what was not declared is an error of the sequence.
struct HookNeeds {
  bool every_row = false;    // observe() after each row; rows then come one by one, in prompts too
  int last_rows = 0;         // the queries of so many rows are kept, for query() and probabilities(); at most 1024
  bool keys_values = false;  // read_key() and so on
  int numbers = 0;           // a hook's floats beside each token, 0 at first, at most 16; memory of the cache
};

// Fails if a number is out of its range.
Status check_needs(const HookNeeds& needs);

// One KV head of a layer. Slots are numbered from 0; a slot holds a token or is free, and stays its token's.
class HookHead {
 public:
  static constexpr int kRun = 256;
  // Arrays run over the slots of a run. numbers: [number][slot].
  struct Run {
    const std::int32_t* positions;
    const float* scores;
    float* numbers;
    int slots;
  };

  virtual ~HookHead() = default;
  int slots() const { return slots_; }
  std::int32_t position(int slot) const { return std::max(-1, run(slot).positions[slot % kRun]); }  // -1: free
  float score(int slot) const { return run(slot).scores[slot % kRun]; }  // A of the recurrence
  float number(int slot, int index) const {
    return has_number(index) ? run(slot).numbers[index * run(slot).slots + slot % kRun] : 0;
  }
  // Whether the token may be evicted: there is one, and it is neither a sink nor pinned nor recent.
  bool may_go(int slot) const { return position(slot) >= first_ && position(slot) <= last_; }
  std::int64_t held() const { return held_; }          // tokens
  std::int64_t budget() const { return budget_; }      // that the plan gives this head
  std::int64_t capacity() const { return capacity_; }  // it may hold so many after the call
  int group() const { return group_; }                 // query heads
  int head_dim() const { return head_dim_; }
  float scale() const { return scale_; }  // a logit is this times query . key

  // The rotated query of a row, `back` rows before the last. Empty where there is none: the sequence is shorter.
  virtual std::span<const float> query(int back, int query_head) const = 0;  // [head dim]
  // What that query gives to the tokens that are here now, of those at or before its position: softmax over them.
  // Zero in free slots. Computed when it is asked for.
  virtual std::span<const float> probabilities(int back, int query_head) const = 0;  // [slot]
  // Spans of just the head's dim.
  virtual void read_key(int slot, std::span<float> key) const = 0;      // [head dim], rotated
  virtual void read_value(int slot, std::span<float> value) const = 0;  // [head dim]

  // For hooks only. The token leaves at once, and its slot is free; in Hook::evict() alone.
  virtual void evict(int slot) = 0;
  // Brings a token back that had left, with score 0 and numbers 0, into the slot of one that this call has evicted from
  // the head; in Hook::evict() alone. Key and value as they were read. The position is past, within the layer's window
  // and not held. No record is kept of it. Returns the slot, -1 where it may not be, which is an error.
  virtual int restore(std::int32_t position, std::span<const float> key, std::span<const float> value) = 0;
  virtual void write_key(int slot, std::span<const float> key) = 0;
  virtual void write_value(int slot, std::span<const float> value) = 0;
  void set_number(int slot, int index, float number) {
    if (has_number(index)) run(slot).numbers[index * run(slot).slots + slot % kRun] = number;
  }

 protected:
  const Run& run(int slot) const { return runs_[static_cast<std::size_t>(slot / kRun)]; }
  virtual bool has_number(int index) const = 0;

  std::vector<Run> runs_;
  int slots_ = 0, group_ = 0, head_dim_ = 0;
  float scale_ = 0;
  std::int64_t held_ = 0, budget_ = 0, capacity_ = 0;
  std::int64_t first_ = 0, last_ = -1;  // positions that may go
};

class HookLayer {
 public:
  HookLayer(int layer, std::int64_t position, std::span<const std::int32_t> token_ids, std::span<HookHead* const> heads,
            bool prompt_ends = false)
      : layer_(layer), position_(position), token_ids_(token_ids), heads_(heads), prompt_ends_(prompt_ends) {}

  int layer() const { return layer_; }
  std::int64_t position() const { return position_; }                     // of the last row
  std::span<const std::int32_t> token_ids() const { return token_ids_; }  // by position, 0 .. position()
  // Whether the row is the last of a prompt that was held whole (EvictAtPromptEnd).
  bool prompt_ends() const { return prompt_ends_; }
  int kv_heads() const { return static_cast<int>(heads_.size()); }
  const HookHead& head(int kv_head) const { return *heads_[static_cast<std::size_t>(kv_head)]; }
  HookHead& head(int kv_head) { return *heads_[static_cast<std::size_t>(kv_head)]; }

 private:
  int layer_;
  std::int64_t position_;
  std::span<const std::int32_t> token_ids_;
  std::span<HookHead* const> heads_;
  bool prompt_ends_;
};

// A token that left the cache of one KV head.
struct Eviction {
  std::int32_t position = 0;  // of the victim
  std::int32_t step = 0;      // the position of the token after which it went
  float score = 0;            // its A then
  float probability = 0;      // what the row at `step` gave it, summed over the group; 0 where a window had left it
                              // behind or a cold token had its place before that row, or a resize evicted it after
};

// Looks on, whatever the policy.
class Observer {
 public:
  virtual ~Observer() = default;
  // After each row, scores updated, before anything goes (HookNeeds::every_row).
  virtual void observe(const HookLayer&) {}
  // A token has left: evicted, or left behind by a window.
  virtual void left(int /*layer*/, int /*kv_head*/, const Eviction&) {}
};

// A row of a layer, as a sequence and its shadow compute it. Views that are valid during the call.
struct ShadowRow {
  int layer;
  std::int64_t position;
  std::span<const float> residual;        // [embedding]: what the layer read, before its norm
  std::span<const float> output, shadow;  // [query head][head dim]: of attention, by the sequence and by its shadow
};

// Looks on at a shadow: a second cache of a sequence, under another policy, that is given the same queries, keys and
// values. What it would have computed goes no further. In a layer of a step its rows follow all of the sequence's own.
class ShadowObserver : public Observer {
 public:
  // After each row of each layer.
  virtual void outputs(const ShadowRow&) {}
};

class Hook {
 public:
  virtual ~Hook() = default;
  // As Observer's; it may set numbers and change keys and values.
  virtual void observe(HookLayer&) {}
  virtual void left(int /*layer*/, int /*kv_head*/, const Eviction&) {}
  // Evicts until no head holds more than its capacity; the sequence fails with an error that names the hook otherwise.
  virtual void evict(HookLayer& layer) = 0;
  // A copy for a fork of the sequence: it goes on as this one would.
  virtual std::unique_ptr<Hook> clone() const = 0;
};

struct HookShape {
  int layers, heads, kv_heads, head_dim;
};

// Makes the hooks of one policy. Immutable, thread safe.
class HookFactory {
 public:
  virtual ~HookFactory() = default;
  virtual std::string_view name() const = 0;  // of the policy
  virtual HookNeeds needs() const { return {}; }
  // Fails where an option is missing or does not fit the model (nullptr: not known yet).
  virtual Status check(const ModelInfo* /*model*/) const { return {}; }
  // Whether an option is the result of tuning on the text of this hash (Profile::was_tuned_on).
  virtual bool was_tuned_on(std::string_view /*text_hash*/) const { return false; }
  // What was in the file that an option names, so that results of another one are told apart; empty: there is none.
  virtual std::string file_text() const { return {}; }
  // Shifts tokens between layers: the budget of a head of this layer, given what the plan says and how many layers
  // there are. Memory follows.
  virtual std::int64_t layer_budget(std::int64_t budget, int /*layer*/, int /*layers*/) const { return budget; }
  // The most tokens one head may hold after an eviction, given its budget. Memory is for a block more.
  virtual std::int64_t capacity(std::int64_t budget) const { return budget; }
  virtual std::unique_ptr<Hook> make(const HookShape& shape) const = 0;
  // The factory with one option of a policy text set ("window", "16"). Fails where there is no such option.
  virtual Result<std::shared_ptr<const HookFactory>> with(std::string_view option, std::string_view value) const;
  // The options that differ from the default, as a policy text has them: ":window=16".
  virtual std::string options() const { return {}; }
};

// Moves budget between the heads of a layer: the lowest score of the whole layer goes, whichever head holds it.
// The layer keeps the sum of its heads' budgets; one head at most twice its own and at least one token.
class SharedBudget : public HookFactory {
 public:
  std::string_view name() const override { return "shared-budget"; }
  std::int64_t capacity(std::int64_t budget) const override;
  std::unique_ptr<Hook> make(const HookShape& shape) const override;
};

}  // namespace a2sf
