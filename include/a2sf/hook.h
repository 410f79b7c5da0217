// Policies outside the family: a hook sees a whole layer after each token and names the victims itself.
#pragma once

#include <a2sf/result.h>

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace a2sf {

// One KV head after a token was attended to. Arrays run over slots; a slot whose position is -1 is free.
// Views are valid during the call only.
struct HookHead {
  std::span<const std::int32_t> positions;
  std::span<const float> scores;         // A of the recurrence, alpha as in the spec
  std::span<const float> probabilities;  // [query head of the group][slot] of the last row; 0 in free slots
  std::span<const float> queries;        // [query head of the group][head dim] of the last row, rotated
  std::span<const float> keys;           // [slot][head dim], rotated
  std::span<const float> values;         // [slot][head dim]
  std::int64_t budget;                   // the share the spec gives this head
};

struct HookLayer {
  int layer;
  std::int64_t position;                    // of the token just attended to
  std::span<const std::int32_t> token_ids;  // by position, 0 .. position
  std::span<const HookHead> heads;
};

struct Victim {
  int kv_head;
  std::int32_t slot;
};

class LayerHook {
 public:
  virtual ~LayerHook() = default;
  virtual std::string_view name() const = 0;
  // The most tokens one head may hold after an eviction, given its share of the budget. Memory is for capacity + 1
  // slots.
  virtual std::int64_t capacity(std::int64_t budget) const { return budget; }
  // Names the tokens to evict. Afterwards no head may hold more than its capacity; the step fails with an error that
  // names the hook otherwise. Called for one layer at a time, in order of position.
  virtual void evict(const HookLayer& layer, std::vector<Victim>& victims) = 0;
};

// Moves budget between the heads of a layer: the lowest score of the whole layer goes, whichever head holds it.
// The layer keeps the sum of its heads' budgets; one head at most twice its share and at least one token; the newest
// half of each head's share stays.
class SharedBudget : public LayerHook {
 public:
  std::string_view name() const override { return "shared-budget"; }
  std::int64_t capacity(std::int64_t budget) const override { return 2 * budget; }
  void evict(const HookLayer& layer, std::vector<Victim>& victims) override;
};

}  // namespace a2sf
