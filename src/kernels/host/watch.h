// What hooks and observers see of a layer in the host's memory, and what is done with the victims that a hook names.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "kernels/host/activations.h"
#include "kernels/host/host_store.h"

namespace a2sf {

// Which row a layer is looked at after.
struct WatchedRow {
  int layer;
  std::int64_t position;
  std::span<const std::int32_t> token_ids;  // of the sequence, at least up to this row
};

// The queries of a group in one row.
struct GroupQueries {
  std::span<const float* const> queries;  // [query head of the group], each [head dim], rotated
  int head_dim;
  std::int64_t position;
  float scale;  // of the logits
  int window;   // 0: none
};

// Softmax of the queries of a group over the tokens of a head, as a device computes it.
class ProbabilitySource {
 public:
  virtual ~ProbabilitySource() = default;
  // out: [query head of the group][slot], 0 in slots that the row does not see.
  virtual void compute(HeadCache& head, const GroupQueries& row, std::span<float> out) = 0;
  // What the last row gave to the token of a slot, summed over the group; 0 where there was no row just now.
  virtual float of_last_row(int /*kv_head*/, int /*slot*/) const { return 0; }
};

// Shows the rows of a span in a layer to whoever looks on at its shadow, whose outputs are `shadow`.
void show_outputs(ShadowObserver& observer, const HostAttendArgs& args, HostRows shadow, const Span& span);

// In plain loops and double precision.
class PlainProbabilities final : public ProbabilitySource {
 public:
  void compute(HeadCache& head, const GroupQueries& row, std::span<float> out) override;
};

// The views of one layer after one row; lives for that call alone. What a hook does wrong is its error. Constructing it
// and everything else may throw std::bad_alloc.
class LayerWatch {
 public:
  LayerWatch(HostStore& store, const WatchedRow& row, ProbabilitySource& probabilities);
  ~LayerWatch();
  LayerWatch(const LayerWatch&) = delete;
  LayerWatch& operator=(const LayerWatch&) = delete;

  // Shows the layer to whoever wants to see every row, then has the hook evict if that is due: in a prompt that evicts
  // nothing (`in_prompt`), after its last row.
  Status after_row(bool in_prompt, bool prompt_ends);
  // Whether the hook is due: its heads hold their budgets and `block` more each, or one its capacity and so much more.
  bool is_over_budget(std::int64_t block) const;
  // Has the hook evict down to the capacities.
  Status evict();

 private:
  class Head;
  friend class Head;

  Status observe();
  template <class Call>
  void call_hook(Call call);
  HookLayer layer() const { return {row_.layer, row_.position, row_.token_ids, views_, prompt_ends_}; }
  Status hook_error() const;

  HostStore& store_;
  WatchedRow row_;
  ProbabilitySource& probabilities_;
  std::vector<std::unique_ptr<Head>> heads_;
  std::vector<HookHead*> views_;
  const HookNeeds* needs_ = nullptr;  // of whoever is being called
  int numbers_ = 0;                   // that it may see
  bool prompt_ends_ = false;          // the row is the last of a prompt that evicted nothing
  bool may_change_ = false, may_evict_ = false;
  std::string wrong_;  // what it did first that it must not
};

// How many rows can follow before the hook is due; at least 1.
std::int64_t rows_until_hook(const HostStore& store, int layer);

// Passes the tokens that have left a layer on to its hook and observer.
void tell_who_left(HostStore& store, int layer);

}  // namespace a2sf
