// The slots of one sequence, on the device that made them.
#pragma once

#include <a2sf/session.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "policy/retention.h"

namespace a2sf {

// Of a model's attention.
struct SequenceShape {
  int layers, heads, kv_heads, head_dim;
  KvType type;
  float scale;               // of the logits
  std::vector<int> windows;  // [layer]: the sliding window, 0: none
};

struct RetainedToken {
  std::int32_t position;
  float score;
};

// Made by a backend, owned by a session; a step of that backend is given it. Not thread safe. Nobody outside the device
// sees a slot: what a step needs follows from positions and counts.
class SequenceStore {
 public:
  virtual ~SequenceStore() = default;
  virtual const Retention& retention() const = 0;

  // Memory for `tokens` more and for the record of what they evict. `prompt`: under block = prompt they are a part of
  // one, and evict nothing. An error, or std::bad_alloc: the tokens are as they were.
  virtual Status make_room(std::int64_t tokens, bool prompt) = 0;
  // After the step with the last token of such a prompt: only the memory of the budgets stays.
  virtual Status end_prompt() = 0;
  // The same tokens and scores in memory of their own; a hook is cloned, observers and shadows are not.
  virtual Result<std::unique_ptr<SequenceStore>> clone() const = 0;
  // Goes over to other rules; evicts at once where there are more tokens than the new ones allow. `token_ids`: of the
  // sequence. An error, or std::bad_alloc: everything is as it was.
  virtual Status resize(ResolvedRetention resized, std::span<const std::int32_t> token_ids) = 0;

  virtual std::vector<RetainedToken> snapshot(int layer, int kv_head) const = 0;  // in order of position
  virtual std::size_t bytes() const = 0;
  virtual std::size_t cold_bytes() const = 0;  // of these, those of the cold tier
  virtual std::size_t peak_bytes() const = 0;  // both caches counted while one is rebuilt

  virtual void record_evictions() = 0;  // from now on
  virtual std::vector<Eviction> drain_evictions(int layer, int kv_head) = 0;

  // nullptr: nobody looks on any more. Fails where the device runs no observers.
  virtual Status observe(std::shared_ptr<Observer> observer, const HookNeeds& needs) = 0;
  // The same queries, keys and values go to `shadow` as well, which this store owns from then on; only its own output
  // goes on. Both are of one device and hold no tokens yet. Fails where the device has none.
  virtual Status add_shadow(std::unique_ptr<SequenceStore> shadow, std::shared_ptr<ShadowObserver> observer) = 0;
};

}  // namespace a2sf
